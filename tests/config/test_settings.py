"""Timeouts of database sessions."""

import pytest
from django.db import connection


@pytest.mark.django_db
@pytest.mark.skipif(connection.vendor == "sqlite", reason="about sessions of MySQL and MariaDB")
@pytest.mark.parametrize(
    ("variable", "seconds"),
    [
        ("wait_timeout", 60),  # the locks of a worker that disappeared
        ("innodb_lock_wait_timeout", 5),  # another session's lock
    ],
)
def test_session_timeout_is_bounded(variable: str, seconds: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT @@SESSION.{variable}")
        assert cursor.fetchone() == (seconds,)
