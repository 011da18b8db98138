"""System checks of the webhook endpoints (`manage.py check`)."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage
from django.core.checks import Warning as CheckWarning


def check_webhook_auth(**_: Any) -> list[CheckMessage]:
    if settings.WEBHOOK_AUTH != "none":
        return []
    return [
        CheckWarning(
            "WEBHOOK_AUTH=none: anyone who can reach /api/webhook/bank/ can credit any organization",
            hint="remove it and set WEBHOOK_SECRETS or other credentials; see docs/security.md",
            id="ingest.W001",
        )
    ]
