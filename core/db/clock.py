"""The database's clock, which all processes share: the clocks of their machines may be a day apart."""

from datetime import UTC, datetime

from django.db import connection
from django.db.models import DateTimeField, Func, Value
from django.utils import timezone


def database_now() -> datetime:
    """Return the database's time in UTC, to the microsecond."""
    if connection.vendor == "sqlite":  # there the machine's clock is the only one
        return timezone.now()
    with connection.cursor() as cursor:
        cursor.execute("SELECT UTC_TIMESTAMP(6)")
        moment: datetime = cursor.fetchone()[0]
    return moment.replace(tzinfo=UTC)


def database_now_sql() -> Func | Value:
    """Return the same as an expression: the time at which the statement that holds it begins."""
    if connection.vendor == "sqlite":  # its own function tells milliseconds only
        return Value(timezone.now(), DateTimeField())
    return Func(function="UTC_TIMESTAMP", template="%(function)s(6)", output_field=DateTimeField())
