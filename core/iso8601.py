"""Dates and times in ISO 8601, with one answer on every version of Python.

The shape is decided here. What datetime.fromisoformat takes besides depends on the version: 24:00 only from
3.14 on, an offset of 60 minutes only before. It also reads 21.5 as half a second past 21:00.
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
    """Return the moment in `text`, extended or basic, weeks included; without an offset it is naive.

    A day ends at 23:59:59: 24:00 is refused, as RFC 3339 has it, and so are seconds and minutes of 60.
    Raises ValueError.
    """
    if not _SHAPE.fullmatch(text):
        raise ValueError(f"no date and time in ISO 8601: {text[:64]!r}")
    return datetime.fromisoformat(text.upper())
