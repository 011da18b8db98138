"""What the database reads, and a session that can only read."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.db import connection


def count_rows_read(action: Callable[[], object]) -> int:
    """How many rows and index entries this session's storage engine handed out for `act`."""

    def handed_out() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read%'")
            return sum(int(count) for _, count in cursor.fetchall())

    # Reading the status reads rows, too; how many, two readings in a row tell.
    overhead = -handed_out() + handed_out()
    before = handed_out()
    action()
    return handed_out() - before - overhead


def count_vm_instructions(action: Callable[[], object]) -> int:
    """How many instructions SQLite's machine took for `act`: it says no rows, but each row takes some."""
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
    """As on a replica, for this session."""
    mysql = connection.vendor == "mysql"
    switch = "SET SESSION TRANSACTION READ {}" if mysql else "PRAGMA query_only = {}"
    off, on = ("WRITE", "ONLY") if mysql else ("OFF", "ON")
    with connection.cursor() as cursor:
        cursor.execute(switch.format(on))
        try:
            yield
        finally:
            cursor.execute(switch.format(off))
