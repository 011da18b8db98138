"""A snapshot reads as of one moment, and neither waits for writers nor blocks them."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import DatabaseError, connection, transaction

from core.db.snapshot import snapshot
from statements.models import OwnAccount
from tests.concurrency import requires_row_locks

pytestmark = pytest.mark.django_db(transaction=True)


def names() -> list[str]:
    return list(OwnAccount.objects.order_by("pk").values_list("number", flat=True))


def create(name: str) -> None:
    """Commit in another session."""

    def run() -> None:
        try:
            OwnAccount.objects.create(number=name, since="2026-01-01")
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(run).result(timeout=30)


def test_what_others_commit_meanwhile_is_not_seen() -> None:
    for name in ("new 1", "new 2"):  # the second transaction of a session is like the first
        with snapshot():
            before = names()
            create(name)
            assert names() == before
        assert names() == [*before, name]
    with transaction.atomic():  # others are as they were
        assert names() == ["new 1", "new 2"]
        if connection.vendor != "sqlite":  # where it has the write lock
            create("new 3")
            assert names() == ["new 1", "new 2", "new 3"]


def test_within_a_transaction_its_changes_are_seen() -> None:
    with transaction.atomic():
        OwnAccount.objects.create(number="new", since="2026-01-01")
        with snapshot():
            assert names() == ["new"]


@requires_row_locks
def test_nothing_can_be_written() -> None:
    with pytest.raises(DatabaseError), snapshot():
        OwnAccount.objects.create(number="new", since="2026-01-01")
