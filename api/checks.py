"""What is worth a warning before it is in production, as system checks."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage
from django.core.checks import Warning as Caution


def check_read_auth(**_: Any) -> list[CheckMessage]:
    if settings.DEBUG or settings.READ_AUTH != "none":
        return []
    hint = "leave READ_AUTH out of the environment, and issue keys with manage.py apikey create"
    return [
        Caution("READ_AUTH=none: whoever reaches this server reads every balance", hint=hint, id="api.W001")
    ]
