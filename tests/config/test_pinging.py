from types import SimpleNamespace
from typing import Any

import pytest

from config import pinging


class Connection:
    """A connection of a server that can be told to hang up."""

    def __init__(self) -> None:
        self.errors_occurred = False
        self.works = True
        self.pings = 0

    def is_usable(self) -> bool:
        self.pings += 1
        return self.works


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(pinging, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


@pytest.fixture
def connection(clock: SimpleNamespace) -> Any:
    made = Connection()
    pinging._ping_seldom(made)  # type: ignore[arg-type]
    return made


def test_a_busy_connection_is_asked_once_a_second(connection: Any, clock: SimpleNamespace) -> None:
    for _ in range(30):
        clock.seconds += 0.1
        assert connection.is_usable()

    assert connection.pings == 2


def test_a_connection_that_was_idle_is_asked(connection: Any, clock: SimpleNamespace) -> None:
    connection.works = False
    clock.seconds += pinging.TRUSTED_SECONDS + 0.1

    assert not connection.is_usable()
    assert not connection.is_usable()  # and is not trusted for having been asked


def test_after_an_error_it_is_asked_at_once(connection: Any) -> None:
    connection.errors_occurred, connection.works = True, False

    assert not connection.is_usable()
