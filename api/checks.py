"""System checks of the API's settings."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage
from django.core.checks import Warning as CheckWarning


def check_read_auth(**_: Any) -> list[CheckMessage]:
    """Warn if production serves balances without authentication."""
    if settings.DEBUG or settings.READ_AUTH != "none":
        return []
    hint = "leave READ_AUTH out of the environment, and issue keys with manage.py apikey create"
    return [CheckWarning("READ_AUTH=none: every client can read every balance", hint=hint, id="api.W001")]
