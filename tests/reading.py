"""How much the database had to read."""

from collections.abc import Callable

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
