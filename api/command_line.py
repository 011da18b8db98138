"""How arguments of commands are read, the same in each."""

import argparse
from datetime import UTC, datetime

from api import iso8601


def moment(text: str) -> datetime:
    """ISO 8601, in UTC unless it has an offset. Raises ArgumentTypeError."""
    try:
        told = iso8601.parse(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"not an ISO 8601 date and time: {text}") from None
    return told if told.tzinfo else told.replace(tzinfo=UTC)
