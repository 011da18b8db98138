"""Optional writes during a read request."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import structlog
from django.db import DatabaseError, InterfaceError, connection

from core.db.sqlite_backend.base import DatabaseWrapper as SQLite

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
    connection.ensure_connection()
    database = cast("SQLite", connection)
    seconds, database.lock_wait_seconds = database.lock_wait_seconds, 0.0
    try:
        yield
    finally:
        database.lock_wait_seconds = seconds
