"""Groups failed webhooks by cause."""

import re

from ingest.models import ERROR_FINGERPRINT_CHARS_MAX

# Tokens with digits are specific to one webhook: ids, amounts, document numbers. Except directly after "(":
# that is the database's error code, which is part of the cause.
_SPECIFIC = re.compile(r"(?<!\()(?<![\w-])[\w-]*\d[\w-]*")
_SPACE = re.compile(r"\s+")


def fingerprint(error: str) -> str:
    """Return `error` with tokens that contain digits masked, truncated to the column's size."""
    return _SPACE.sub(" ", _SPECIFIC.sub("#", error)).strip()[:ERROR_FINGERPRINT_CHARS_MAX]


def error_fields(error: str) -> dict[str, str]:
    """Return the error columns of a failed webhook."""
    return {"last_error": error, "error_fingerprint": fingerprint(error)}
