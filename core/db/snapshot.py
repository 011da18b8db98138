"""Read several tables as they were at one moment."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections, transaction
from django.db.utils import DEFAULT_DB_ALIAS


@contextmanager
def snapshot() -> Iterator[None]:
    """Read without what other sessions commit meanwhile: waits for no lock, and for reading only.

    Within a transaction, which has to see its own changes, read as it does.
    """
    connection: Any = connections[DEFAULT_DB_ALIAS]
    if connection.in_atomic_block:
        yield
        return
    connection.ensure_connection()
    begin = _begin_deferred if connection.vendor == "sqlite" else _begin_repeatable_read
    with begin(connection), transaction.atomic():
        yield


@contextmanager
def _begin_repeatable_read(connection: Any) -> Iterator[None]:
    with connection.cursor() as cursor:  # the next transaction, and no other
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    yield


@contextmanager
def _begin_deferred(connection: Any) -> Iterator[None]:
    """Begin without the write lock, which transactions otherwise take at once."""
    mode, connection.transaction_mode = connection.transaction_mode, "DEFERRED"
    try:
        yield
    finally:
        connection.transaction_mode = mode
