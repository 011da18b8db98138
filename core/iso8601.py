"""Parsing of ISO 8601 dates and times, independent of the Python version.

A regular expression defines the accepted format, because datetime.fromisoformat differs between versions:
it accepts 24:00 only from 3.14 on, and an offset of 60 minutes only before. It also reads 21.5 as half a
second past 21:00.
"""

import re
from datetime import datetime

_TIME = (
    "(?:[01][0-9]|2[0-3])"
    "(?::[0-5][0-9](?::[0-5][0-9](?:[.,][0-9]+)?)?|[0-5][0-9](?:[0-5][0-9](?:[.,][0-9]+)?)?)?"
)
_SHAPE = re.compile(
    r"(?:[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{8}|[0-9]{4}-W[0-9]{2}(?:-[0-9])?|[0-9]{4}W[0-9]{2}[0-9]?)"
    rf"(?:[Tt ]{_TIME}(?:[Zz]|[+-]{_TIME})?)?"
)


def parse(text: str) -> datetime:
    """Parse the extended or basic format, week dates included; the result is naive without an offset.

    As in RFC 3339, 24:00 is invalid, and so are seconds and minutes of 60. Raise ValueError.
    """
    if not _SHAPE.fullmatch(text):
        raise ValueError(f"not an ISO 8601 date and time: {text[:64]!r}")
    return datetime.fromisoformat(text.upper())
