"""Optional writes during a read request."""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from django.db import DatabaseError, InterfaceError, connection

log = structlog.get_logger(__name__)


@contextmanager
def best_effort_write(failure: str) -> Iterator[None]:
    """Log `failure` instead of raising when a write in the block fails.

    On SQLite the write fails at once if a worker has the only write lock, so that no read waits for it.
    """
    try:
        with _sqlite_without_waiting():
            yield
    except (DatabaseError, InterfaceError) as exc:
        log.warning(failure, error=repr(exc))


@contextmanager
def _sqlite_without_waiting() -> Iterator[None]:
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
