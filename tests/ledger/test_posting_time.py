"""When a payment counts as posted: by the database's clock, and in the order of the log."""

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
    """Set the clock by which payments are posted, as a failover to another server does."""

    def set_to(moment: datetime) -> None:
        monkeypatch.setattr(clock, "database_now_sql", lambda: Value(moment, DateTimeField()))

    return set_to


def romashka() -> Organization:
    return Organization.objects.get(inn=ROMASHKA)


def times(inn: str) -> list[datetime]:
    log = BalanceLog.objects.filter(organization__inn=inn).order_by("seq")
    return list(log.values_list("created_at", flat=True))


@pytest.mark.parametrize("ahead", [DAY, -DAY, timedelta(seconds=5), timedelta(seconds=-5)])
def test_a_worker_whose_clock_is_wrong_posts_at_the_databases_time(
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
def test_an_organization_is_opened_at_the_databases_time(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = datetime(2024, 4, 27, 21, tzinfo=UTC)
    monkeypatch.setattr(clock, "database_now", lambda: moment)

    create_organizations({ROMASHKA})

    assert romashka().opened_at == moment


def test_a_clock_that_steps_back_posts_nothing_before_the_newest_line(set_clock: SetClock) -> None:
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


def test_a_line_ahead_of_the_clock_holds_back_its_own_organization_only(set_clock: SetClock) -> None:
    noon = datetime(2024, 4, 27, 12, tzinfo=UTC)
    set_clock(noon + DAY)
    post_payments(terms())
    set_clock(noon)
    post_payments(terms(), terms(inn=VASILEK))

    assert times(ROMASHKA) == [noon + DAY, noon + DAY]
    assert times(VASILEK) == [noon]


def test_a_payment_has_the_time_of_its_line(set_clock: SetClock) -> None:
    noon = datetime(2024, 4, 27, 12, tzinfo=UTC)
    for moment in (noon, noon - DAY):
        set_clock(moment)
        post_payments(terms(), terms(inn=VASILEK))

    pairs = list(Payment.objects.values_list("created_at", "log_entry__created_at"))
    assert pairs == [(noon, noon)] * 4


# --- from when the past is settled ------------------------------------------------------------------------


def answered(client: Client, path: str, **query: Any) -> Any:
    return client.get(path, query).json()


def test_a_past_behind_which_lines_are_written_is_settled_at_once() -> None:
    post_payments(terms())
    (first,) = times(ROMASHKA)

    assert is_settled(romashka(), first - TIME_RESOLUTION)
    assert not is_settled(romashka(), first)  # the next line may have the same time


def test_a_past_without_a_later_line_is_settled_when_no_posting_can_be_as_old(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_organizations(ROMASHKA)
    noon = datetime(2024, 4, 27, 12, tzinfo=UTC)
    monkeypatch.setattr(clock, "database_now", lambda: noon)

    assert is_settled(romashka(), noon - SETTLED_AFTER - TIME_RESOLUTION)
    assert not is_settled(romashka(), noon - SETTLED_AFTER)
    assert not is_settled(romashka(), noon + DAY)


@pytest.mark.parametrize(("path", "moment"), [(BALANCE, "at"), (HISTORY, "to")])
def test_only_an_answer_about_the_past_says_whether_it_is_settled(
    client: Client, path: str, moment: str
) -> None:
    post_payments(terms())
    (line,) = times(ROMASHKA)

    assert "settled" not in answered(client, path)
    assert answered(client, path, **{moment: (line - DAY).isoformat()})["settled"] is True
    assert answered(client, path, **{moment: (line + DAY).isoformat()})["settled"] is False


@requires_row_locks
@pytest.mark.django_db(transaction=True)
def test_an_answer_that_an_uncommitted_posting_changes_was_not_settled(client: Client) -> None:
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
        early = answered(client, BALANCE, at=now.isoformat())
        may_commit.set()
        posting.result()
    post_payments(terms(10_00))

    assert early == {"inn": ROMASHKA, "balance": 1, "settled": False}
    late = answered(client, BALANCE, at=now.isoformat())
    assert late == {"inn": ROMASHKA, "balance": 6, "settled": True}
