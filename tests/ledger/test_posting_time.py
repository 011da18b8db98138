"""Times of payments: from the database's clock, never decreasing within a log."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from threading import Event
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models import DateTimeField, Value
from django.test import Client
from django.utils import timezone

from core.db import clock
from ledger.models import BalanceLog, Organization, Payment
from ledger.posting import create_organizations, post
from ledger.queries import SETTLED_AFTER, TIME_RESOLUTION, balance_at, is_settled
from tests.concurrency import requires_row_locks
from tests.factories import (
    ROMASHKA,
    VASILEK,
    lock_organizations,
    make_organizations,
    post_payments,
    posting_source,
    terms,
)

pytestmark = pytest.mark.django_db
DAY = timedelta(days=1)
BALANCE = f"/api/organizations/{ROMASHKA}/balance/"
HISTORY = f"{BALANCE}history/"

SetClock = Callable[[datetime], None]


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    """Return a function that sets the database's clock, as a failover to another server does."""

    def set_to(moment: datetime) -> None:
        monkeypatch.setattr(clock, "database_now_sql", lambda: Value(moment, DateTimeField()))

    return set_to


def romashka() -> Organization:
    return Organization.objects.get(inn=ROMASHKA)


def times(inn: str) -> list[datetime]:
    log = BalanceLog.objects.filter(organization__inn=inn).order_by("seq")
    return list(log.values_list("created_at", flat=True))


@pytest.mark.parametrize("ahead", [DAY, -DAY, timedelta(seconds=5), timedelta(seconds=-5)])
def test_worker_with_wrong_clock_posts_at_database_time(
    ahead: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("SQLite has the worker's clock")
    post_payments(*(terms(1_00) for _ in range(33)))
    with monkeypatch.context() as patched:
        patched.setattr(timezone, "now", lambda: datetime.now(UTC) + ahead)
        post_payments(terms(1_00))
    post_payments(*(terms(1_00) for _ in range(6)))

    assert romashka().balance_kopecks == balance_at(romashka(), clock.database_now()) == 40_00
    assert all(earlier <= later for earlier, later in pairwise(times(ROMASHKA)))


@pytest.mark.django_db(transaction=True)
def test_organization_is_created_at_database_time(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = datetime(2024, 4, 27, 21, tzinfo=UTC)
    monkeypatch.setattr(clock, "database_now", lambda: moment)

    create_organizations({ROMASHKA})

    assert romashka().opened_at == moment


def test_clock_set_back_posts_no_earlier_than_last_entry(set_clock: SetClock) -> None:
    noon = datetime(2024, 4, 27, 12, tzinfo=UTC)
    set_clock(noon)
    post_payments(terms(1_00))
    set_clock(noon - DAY)
    post_payments(terms(2_00), terms(3_00))
    set_clock(noon + DAY)
    post_payments(terms(4_00))

    assert times(ROMASHKA) == [noon, noon, noon, noon + DAY]
    assert [balance_at(romashka(), at) for at in (noon - TIME_RESOLUTION, noon, noon + DAY)] == [
        0,
        6_00,
        10_00,
    ]


def test_entry_ahead_of_the_clock_affects_only_its_organization(set_clock: SetClock) -> None:
    noon = datetime(2024, 4, 27, 12, tzinfo=UTC)
    set_clock(noon + DAY)
    post_payments(terms())
    set_clock(noon)
    post_payments(terms(), terms(inn=VASILEK))

    assert times(ROMASHKA) == [noon + DAY, noon + DAY]
    assert times(VASILEK) == [noon]


def test_payment_has_the_time_of_its_entry(set_clock: SetClock) -> None:
    noon = datetime(2024, 4, 27, 12, tzinfo=UTC)
    for moment in (noon, noon - DAY):
        set_clock(moment)
        post_payments(terms(), terms(inn=VASILEK))

    pairs = list(Payment.objects.values_list("created_at", "log_entry__created_at"))
    assert pairs == [(noon, noon)] * 4


# --- settled balances ----------------------------------------------------------------------------------


def get_json(client: Client, path: str, **query: Any) -> Any:
    return client.get(path, query).json()


def test_balance_before_a_later_entry_is_settled() -> None:
    post_payments(terms())
    (first,) = times(ROMASHKA)

    assert is_settled(romashka(), first - TIME_RESOLUTION)
    assert not is_settled(romashka(), first)  # the next entry may have the same time


def test_balance_without_later_entry_is_settled_after_the_longest_posting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_organizations(ROMASHKA)
    noon = datetime(2024, 4, 27, 12, tzinfo=UTC)
    monkeypatch.setattr(clock, "database_now", lambda: noon)

    assert is_settled(romashka(), noon - SETTLED_AFTER - TIME_RESOLUTION)
    assert not is_settled(romashka(), noon - SETTLED_AFTER)
    assert not is_settled(romashka(), noon + DAY)


@pytest.mark.parametrize(("path", "moment"), [(BALANCE, "at"), (HISTORY, "to")])
def test_settled_is_returned_only_for_a_past_instant(client: Client, path: str, moment: str) -> None:
    post_payments(terms())
    (posted_at,) = times(ROMASHKA)

    assert "settled" not in get_json(client, path)
    assert get_json(client, path, **{moment: (posted_at - DAY).isoformat()})["settled"] is True
    assert get_json(client, path, **{moment: (posted_at + DAY).isoformat()})["settled"] is False


@requires_row_locks
@pytest.mark.django_db(transaction=True)
def test_balance_is_not_settled_while_a_posting_is_uncommitted(client: Client) -> None:
    post_payments(terms(1_00))
    is_posted, may_commit = Event(), Event()

    def post_slowly() -> None:
        try:
            with transaction.atomic():
                post(posting_source(terms(5_00)), lock_organizations({ROMASHKA}))
                is_posted.set()
                assert may_commit.wait(30)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        posting = pool.submit(post_slowly)
        assert is_posted.wait(30)
        now = clock.database_now()
        early = get_json(client, BALANCE, at=now.isoformat())
        may_commit.set()
        posting.result()
    post_payments(terms(10_00))

    assert early == {"inn": ROMASHKA, "balance": 1, "settled": False}
    late = get_json(client, BALANCE, at=now.isoformat())
    assert late == {"inn": ROMASHKA, "balance": 6, "settled": True}
