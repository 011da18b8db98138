"""A process that waits for SQLite's one write lock finds the milliseconds between the writes of others."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from types import SimpleNamespace

import pytest
from django.db import OperationalError, connection, transaction

from config.env import SQLITE_OPTIONS
from core.best_effort import best_effort_write
from core.db.sqlite_backend import base
from ledger.models import Organization

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "sqlite", reason="about SQLite"),
]


@contextmanager
def locked() -> Iterator[sqlite3.Connection]:
    """Yield another session that has the write lock."""
    connection.ensure_connection()
    with closing(sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


def write() -> None:
    Organization.objects.update(last_seq=1)


@pytest.mark.parametrize("action", [write, transaction.atomic(write)], ids=["statement", "transaction"])
def test_lock_is_tried_for_every_few_milliseconds(
    action: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    with locked() as other:

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 50:
                other.execute("COMMIT")

        monkeypatch.setattr(base, "time", SimpleNamespace(monotonic=lambda: 0.0, sleep=sleep))
        action()

    assert len(waits) == 50
    assert max(waits) <= 0.003


def test_lock_that_is_not_released_is_an_error_after_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    connection.ensure_connection()
    monkeypatch.setattr(connection, "lock_wait_seconds", 0.2)
    start = time.monotonic()
    with locked(), pytest.raises(OperationalError, match="locked"):
        write()

    assert time.monotonic() - start >= 0.2


def test_best_effort_write_does_not_wait() -> None:
    start = time.monotonic()
    with locked(), best_effort_write("not written"):
        write()
        pytest.fail("the write succeeded")

    assert time.monotonic() - start < SQLITE_OPTIONS["timeout"] / 2
