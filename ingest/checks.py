"""What the operator should know of the doors, as a system check (`manage.py check`)."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage
from django.core.checks import Warning as Caution


def check_webhook_auth(**_: Any) -> list[CheckMessage]:
    if settings.WEBHOOK_AUTH != "none":
        return []
    return [
        Caution(
            "WEBHOOK_AUTH=none: whoever reaches /api/webhook/bank/ can credit any organization",
            hint="take it out and set WEBHOOK_SECRETS, or another proof; see docs/security.md",
            id="ingest.W001",
        )
    ]
