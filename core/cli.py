"""Helpers for commands: argument types, and one-line startup errors."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime

from django.core.exceptions import ImproperlyConfigured

from core import iso8601
from core.days import DAY_MAX, DAY_MIN, is_plausible


def aware_datetime(text: str) -> datetime:
    """Parse an ISO 8601 argument, as UTC unless it has an offset. Raise ArgumentTypeError if malformed."""
    try:
        moment = iso8601.parse(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"not an ISO 8601 date and time: {text}") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def day(text: str) -> date:
    """Parse a day of the years 1900 to 2999. Raise ArgumentTypeError for others."""
    try:
        parsed = date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"not a date like 2026-03-31: {text}") from None
    if not is_plausible(parsed):
        raise argparse.ArgumentTypeError(f"not between {DAY_MIN} and {DAY_MAX}: {text}")
    return parsed


@contextmanager
def exit_on_misconfiguration(status: int = 1) -> Iterator[None]:
    """Exit with `status` and a one-line message when the block raises ImproperlyConfigured."""
    try:
        yield
    except ImproperlyConfigured as exc:
        sys.stderr.write(f"Prihod can't start: {exc}\n")
        raise SystemExit(status) from None
