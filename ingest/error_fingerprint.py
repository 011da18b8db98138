"""What kind of error it was: the same for all webhooks that failed of one cause."""

import re

from ingest.models import ERROR_FINGERPRINT_CHARS_MAX

# Any word with a digit in it is some webhook's own: an id, an amount, a document number. Right behind a
# parenthesis it is the code of a database's error, which tells one kind from another.
_OWN = re.compile(r"(?<!\()(?<![\w-])[\w-]*\d[\w-]*")
_SPACE = re.compile(r"\s+")


def fingerprint(error: str) -> str:
    """`error` with what is a webhook's own masked, cut to the column's size."""
    return _SPACE.sub(" ", _OWN.sub("#", error)).strip()[:ERROR_FINGERPRINT_CHARS_MAX]


def error_fields(error: str) -> dict[str, str]:
    """The columns of a webhook that failed so."""
    return {"last_error": error, "error_fingerprint": fingerprint(error)}
