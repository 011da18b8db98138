"""The connection check before each request."""

import time
from collections.abc import Callable

import pytest
from django.db import DatabaseError, connection

from tests.concurrency import run_concurrently

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor == "sqlite", reason="about sessions of MySQL and MariaDB"),
]
ENDED_SECONDS_MAX = 20.0


def test_connection_in_use_is_checked_without_a_ping() -> None:
    pings = _pings_after_a_check()
    assert connection.is_usable()
    assert _pings() == pings


def test_idle_connection_is_pinged(monkeypatch: pytest.MonkeyPatch) -> None:
    pings = _pings_after_a_check()
    monkeypatch.setattr("core.db.mysql_backend.base.IDLE_SECONDS_MAX", 0.0)
    assert connection.is_usable()
    assert _pings() == pings + 1


def _kill() -> None:
    session = connection.connection.thread_id()

    def end() -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"KILL {session}")

    run_concurrently([end])


def _let_time_out() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION wait_timeout = 1")


@pytest.mark.parametrize("end", [_kill, _let_time_out])
def test_connection_closed_by_the_server_is_unusable(end: Callable[[], None]) -> None:
    connection.ensure_connection()
    end()
    deadline = time.monotonic() + ENDED_SECONDS_MAX
    while connection.is_usable():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    connection.close()


def test_connection_is_pinged_after_an_error() -> None:
    with pytest.raises(DatabaseError), connection.cursor() as cursor:
        cursor.execute("no such statement")
    pings = _pings_after_a_check()
    assert connection.is_usable()
    assert _pings() == pings + 1


def _pings_after_a_check() -> int:
    connection.ensure_connection()
    connection.is_usable()
    return _pings()


def _pings() -> int:
    """Return the number of pings in this session."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW SESSION STATUS LIKE 'Com_admin_commands'")
        return int(cursor.fetchone()[1])
