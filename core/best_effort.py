"""Writes beside a read."""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from django.db import DatabaseError, InterfaceError, connection

log = structlog.get_logger(__name__)


@contextmanager
def best_effort_write(failure: str) -> Iterator[None]:
    """If what is written in the block fails, `failure` is logged, and the read goes on.

    SQLite's only lock may be a worker's at the moment; then the write fails at once, and waits for nothing.
    """
    try:
        with _sqlite_unwaiting():
            yield
    except (DatabaseError, InterfaceError) as fault:
        log.warning(failure, error=repr(fault))


@contextmanager
def _sqlite_unwaiting() -> Iterator[None]:
    if connection.vendor != "sqlite":
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout")
        (milliseconds,) = cursor.fetchone()
        cursor.execute("PRAGMA busy_timeout = 0")
        try:
            yield
        finally:
            cursor.execute(f"PRAGMA busy_timeout = {milliseconds}")
