"""SQLite's one write lock is passed on among processes that write back to back."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from django.db import OperationalError, connection, transaction

from config.env import SQLITE_OPTIONS
from core.best_effort import best_effort_write
from ledger.models import Organization
from tests.factories import ROMASHKA, make_organizations

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "sqlite", reason="about SQLite"),
]
HELD_SECONDS, FREE_SECONDS = 0.02, 0.001
WRITES = 20
SECONDS_MAX = 10.0  # 2 s on an idle machine; SQLite's own waiting takes 40 s


@contextmanager
def busy_writer() -> Iterator[None]:
    """Commit back to back in another session."""
    ended = threading.Event()

    def write() -> None:
        with closing(
            sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None, timeout=20)
        ) as other:
            while not ended.is_set():
                other.execute("BEGIN IMMEDIATE")
                time.sleep(HELD_SECONDS)
                other.execute("COMMIT")
                time.sleep(FREE_SECONDS)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def locked() -> Iterator[None]:
    with closing(sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def test_writes_find_the_moments_between_those_of_a_busy_process() -> None:
    make_organizations(ROMASHKA)
    start = time.monotonic()
    with busy_writer():
        for number in range(WRITES):
            with transaction.atomic():
                Organization.objects.update(last_seq=number)
            Organization.objects.update(last_seq=number)  # without a transaction of its own

    assert time.monotonic() - start < SECONDS_MAX


def test_lock_that_is_not_released_is_an_error_after_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    connection.ensure_connection()
    monkeypatch.setattr(connection, "lock_wait_seconds", 0.2)
    start = time.monotonic()
    with locked(), pytest.raises(OperationalError, match="locked"):
        Organization.objects.update(last_seq=1)

    assert time.monotonic() - start >= 0.2


def test_best_effort_write_does_not_wait() -> None:
    with locked(), best_effort_write("not written"):
        start = time.monotonic()
        Organization.objects.update(last_seq=1)
        pytest.fail("the write succeeded")

    assert time.monotonic() - start < SQLITE_OPTIONS["timeout"] / 2
