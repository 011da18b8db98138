"""What is the same in each command: how it says that it can't start, and how arguments are read."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from django.core.exceptions import ImproperlyConfigured

from core import iso8601


def aware_datetime(text: str) -> datetime:
    """ISO 8601, in UTC unless it has an offset. Raises ArgumentTypeError."""
    try:
        told = iso8601.parse(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"not an ISO 8601 date and time: {text}") from None
    return told if told.tzinfo else told.replace(tzinfo=UTC)


@contextmanager
def exit_on_misconfiguration(status: int = 1) -> Iterator[None]:
    """Exit with `status` and one line, where the block raises ImproperlyConfigured."""
    try:
        yield
    except ImproperlyConfigured as exc:
        sys.stderr.write(f"Prihod can't start: {exc}\n")
        raise SystemExit(status) from None
