"""What no log line above DEBUG, no error report and no trace holds: whole INNs, and what databases quote.

None of any level holds credentials of a URL.
"""

import re
from typing import Any

from core.observability.url_credentials import redact_urls

# Operation ids come first, with hyphens or without, and stay: a part of one may look like an INN.
_INN = re.compile(
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}|(?<!\d)([0-9]{10}|[0-9]{12})(?!\d)",
    re.IGNORECASE,
)
# MySQL's and MariaDB's errors 1062, 1292 and 1366: "Duplicate entry '…' for key", "Incorrect … value: '…'".
_QUOTED = re.compile(r"(?:(?<= entry )|(?<= value: ))'.*?'(?= for (?:key|column) |\W*$)", re.MULTILINE)


def mask_inns(text: str) -> str:
    """`text` with 1234567890 as 12******90, and so every other run of 10 or 12 digits."""
    return _INN.sub(_mask_inn, text)


def _mask_inn(match: re.Match[str]) -> str:
    inn: str | None = match[1]
    return f"{inn[:2]}{'*' * (len(inn) - 4)}{inn[-2:]}" if inn else match[0]


def redact(value: Any) -> Any:
    """`value` with every text in it masked, in lists and dictionaries too; other objects as their repr().

    Numbers stay as they are: no INN is one.
    """
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, dict):
        return {redact(key): redact(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [redact(one) for one in value]
    text = value if isinstance(value, str) else repr(value)
    return mask_inns(_QUOTED.sub("'…'", redact_urls(text)))
