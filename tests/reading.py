"""What the database reads, and a session that can only read."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.db import connection


def rows_read_by(act: Callable[[], object]) -> int:
    """How many rows and index entries this session's storage engine handed out for `act`."""

    def handed_out() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read%'")
            return sum(int(count) for _, count in cursor.fetchall())

    # Reading the status reads rows, too; how many, two readings in a row tell.
    overhead = -handed_out() + handed_out()
    before = handed_out()
    act()
    return handed_out() - before - overhead


@contextmanager
def read_only() -> Iterator[None]:
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
