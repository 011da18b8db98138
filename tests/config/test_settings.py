"""What each session of the database is told, so that nobody waits for anybody without end."""

import pytest
from django.db import connection


@pytest.mark.django_db
@pytest.mark.skipif(connection.vendor == "sqlite", reason="about sessions of MySQL and MariaDB")
@pytest.mark.parametrize(
    ("variable", "seconds"),
    [
        ("wait_timeout", 60),  # the locks of a worker that vanished without a word
        ("innodb_lock_wait_timeout", 5),  # a lock that somebody else holds
    ],
)
def test_the_server_waits_only_so_long(variable: str, seconds: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT @@SESSION.{variable}")
        assert cursor.fetchone() == (seconds,)
