"""Redaction of log lines, error reports and traces.

Above DEBUG they contain no complete INN and no value that a database error quotes. At no level do they
contain the credentials of a URL.
"""

import re
from typing import Any

# RFC 3986, 3.2.1: from // to the last @ of the authority. A password may hold an unquoted one.
_USERINFO = re.compile(r"(?<=://)[^\s/?#'\"]+@")
# The first alternatives match operation ids, which remain: a part of one may look like an INN.
_INN = re.compile(
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}|(?<!\d)([0-9]{10}|[0-9]{12})(?!\d)",
    re.IGNORECASE,
)
# MySQL's and MariaDB's errors 1062, 1292 and 1366: "Duplicate entry '…' for key", "Incorrect … value: '…'".
_QUOTED = re.compile(r"(?:(?<= entry )|(?<= value: ))'.*?'(?= for (?:key|column) |\W*$)", re.MULTILINE)


def redact(value: Any) -> Any:
    """Return `value` with every text in it redacted, in lists and dictionaries as well.

    Numbers remain, because no INN is stored as one. Other objects become their redacted repr().
    """
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, dict):
        return {redact(key): redact(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [redact(one) for one in value]
    text = value if isinstance(value, str) else repr(value)
    return mask_inns(_QUOTED.sub("'…'", redact_urls(text)))


def redact_urls(text: str) -> str:
    """Replace redis://user:password@host by redis://***@host."""
    return _USERINFO.sub("***@", text)


def mask_inns(text: str) -> str:
    """Replace 1234567890 by 12******90, and likewise every other run of 10 or 12 digits."""
    return _INN.sub(_mask_inn, text)


def _mask_inn(match: re.Match[str]) -> str:
    inn: str | None = match[1]
    return f"{inn[:2]}{'*' * (len(inn) - 4)}{inn[-2:]}" if inn else match[0]


def exception_summary(exc: Exception) -> str:
    """Describe an exception without its arguments, which may contain a URL."""
    reason = getattr(exc, "strerror", None)  # the operating system's message of an OSError
    return f"{type(exc).__name__}: {reason}" if reason else type(exc).__name__
