"""Count what a query reads, and open a read-only session."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.db import connection


def count_rows_read(action: Callable[[], object]) -> int:
    """Return the number of rows and index entries that the session's storage engine reads during `action`."""

    def rows_read() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read%'")
            return sum(int(count) for _, count in cursor.fetchall())

    # SHOW STATUS reads rows too; two consecutive calls give their number.
    overhead = -rows_read() + rows_read()
    before = rows_read()
    action()
    return rows_read() - before - overhead


def count_vm_instructions(action: Callable[[], object]) -> int:
    """Return the number of SQLite VM instructions during `action`, which grows with the rows read."""
    taken = 0

    def count() -> None:
        nonlocal taken
        taken += 1

    connection.ensure_connection()
    connection.connection.set_progress_handler(count, 1)
    try:
        action()
    finally:
        connection.connection.set_progress_handler(None, 1)
    return taken


@contextmanager
def read_only_session() -> Iterator[None]:
    """Make the session read-only, as on a replica."""
    mysql = connection.vendor == "mysql"
    switch = "SET SESSION TRANSACTION READ {}" if mysql else "PRAGMA query_only = {}"
    off, on = ("WRITE", "ONLY") if mysql else ("OFF", "ON")
    with connection.cursor() as cursor:
        cursor.execute(switch.format(on))
        try:
            yield
        finally:
            cursor.execute(switch.format(off))
