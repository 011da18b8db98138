"""How a connection is asked whether it still lives."""

import time
from collections.abc import Callable

import pytest
from django.db import DatabaseError, connection

from core.db.mysql_backend import base
from tests.concurrency import run_concurrently

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor == "sqlite", reason="about sessions of MySQL and MariaDB"),
]
ENDED_SECONDS_MAX = 20.0


def test_a_connection_in_use_is_known_to_live_without_a_word() -> None:
    asked = _pings_after_a_look()
    assert connection.is_usable()
    assert _pings() == asked


def test_a_connection_that_has_been_idle_is_kept_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _pings_after_a_look()
    monkeypatch.setattr(base, "IDLE_SECONDS_MAX", 0.0)
    assert connection.is_usable()
    assert _pings() == asked + 1


def _kill() -> None:
    session = connection.connection.thread_id()

    def end() -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"KILL {session}")

    run_concurrently([end])


def _wait_idly() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION wait_timeout = 1")


@pytest.mark.parametrize("end", [_kill, _wait_idly])
def test_a_connection_that_the_server_has_ended_is_known_not_to_live(end: Callable[[], None]) -> None:
    connection.ensure_connection()
    end()
    give_up = time.monotonic() + ENDED_SECONDS_MAX
    while connection.is_usable():
        assert time.monotonic() < give_up
        time.sleep(0.01)
    connection.close()


def test_after_an_error_the_server_is_asked() -> None:
    with pytest.raises(DatabaseError), connection.cursor() as cursor:
        cursor.execute("no such statement")
    asked = _pings_after_a_look()
    assert connection.is_usable()
    assert _pings() == asked + 1


def _pings_after_a_look() -> int:
    connection.ensure_connection()
    connection.is_usable()
    return _pings()


def _pings() -> int:
    """How many this session has sent."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW SESSION STATUS LIKE 'Com_admin_commands'")
        return int(cursor.fetchone()[1])
