"""The database's clock. All processes share it, while the clocks of their machines can differ by a day."""

from datetime import UTC, datetime

from django.db import connection
from django.db.models import DateTimeField, Func, Value
from django.utils import timezone


def database_now() -> datetime:
    """Return the database's time in UTC, with microseconds."""
    if connection.vendor == "sqlite":  # an embedded database has the machine's clock
        return timezone.now()
    with connection.cursor() as cursor:
        cursor.execute("SELECT UTC_TIMESTAMP(6)")
        now: datetime = cursor.fetchone()[0]
    return now.replace(tzinfo=UTC)


def database_now_sql() -> Func | Value:
    """Return an expression for the time at which the statement that contains it starts."""
    if connection.vendor == "sqlite":  # its own function returns milliseconds only
        return Value(timezone.now(), DateTimeField())
    return Func(function="UTC_TIMESTAMP", template="%(function)s(6)", output_field=DateTimeField())
