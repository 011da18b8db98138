"""Statements of a log whose entry n is n rubles, written n hours after midnight."""

from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.test import Client

from ledger import queries, statement
from ledger.models import Organization
from ledger.statement import CHART_POINTS_MAX, Period
from tests.factories import ROMASHKA, VASILEK, post_payments, terms
from tests.ledger.test_queries import LONG, append, make_log, total
from tests.query_plans import assert_index_lookups_only, requires_mysql_explain

pytestmark = pytest.mark.django_db
MOSCOW = ZoneInfo("Europe/Moscow")
FIRST_DAY = date(2024, 4, 28)  # in Moscow, at whose midnight the log begins
DAY = timedelta(days=1)


def statement_of(
    organization: Organization, first: date | None = None, last: date | None = None, zone: Any = MOSCOW
) -> statement.Statement:
    return statement.make_statement(organization, Period(first, last, zone))


def seqs(period_statement: statement.Statement) -> list[int]:
    return [entry.seq for entry in period_statement.entries()]


def in_moscow(client: Client) -> Client:
    client.cookies["time_zone"] = "Europe/Moscow"
    return client


def test_statement_has_entries_of_its_days_and_both_balances() -> None:
    organization = make_log(100)

    period_statement = statement_of(organization, FIRST_DAY + DAY, FIRST_DAY + 2 * DAY)

    assert seqs(period_statement) == list(range(24, 72))
    assert (period_statement.opening, period_statement.closing) == (total(23), total(71))
    assert period_statement.turnover == sum(n * 1_00 for n in range(24, 72))
    assert period_statement.count == 48


def test_days_start_and_end_at_midnight_of_the_viewers_zone() -> None:
    organization = make_log(60)

    assert seqs(statement_of(organization, FIRST_DAY, FIRST_DAY)) == list(range(1, 24))
    assert seqs(statement_of(organization, FIRST_DAY, FIRST_DAY, UTC)) == list(range(3, 27))
    assert seqs(statement_of(organization, last=FIRST_DAY - DAY, zone=UTC)) == [1, 2]


def test_day_of_a_clock_change_has_its_own_length() -> None:
    """31 March 2024 had 23 hours in Berlin."""
    period = Period(date(2024, 3, 31), date(2024, 3, 31), ZoneInfo("Europe/Berlin"))

    assert period.since == datetime(2024, 3, 30, 23, tzinfo=UTC)
    assert period.until == datetime(2024, 3, 31, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "day"),
    [
        ("Africa/Cairo", date(2024, 11, 1)),  # back to 23:00 at midnight
        ("America/Santiago", date(2024, 4, 7)),
        ("Asia/Beirut", date(2024, 10, 27)),
        ("America/Nuuk", date(2024, 10, 27)),
        ("America/Havana", date(2024, 11, 3)),  # back to midnight at one o'clock
        ("Africa/Cairo", date(2024, 4, 26)),  # without a midnight: on to 01:00
        ("America/Santiago", date(2024, 9, 8)),
        ("America/Havana", date(2024, 3, 10)),
        ("Antarctica/Casey", date(2021, 3, 14)),  # back by three hours at midnight
        ("Australia/Lord_Howe", date(2024, 4, 7)),  # by half an hour
        ("Pacific/Apia", date(2011, 12, 31)),  # the day before was left out
    ],
)
def test_entry_is_on_the_statement_of_the_day_it_is_shown_with(zone: str, day: date) -> None:
    at = datetime.combine(day, time(), tzinfo=UTC) - 2 * DAY
    times = [at + n * timedelta(minutes=15) for n in range(4 * 24 * 4)]
    organization = append(Organization.objects.create(inn=ROMASHKA, opened_at=at), len(times), times=times)

    for shown in (day - DAY, day, day + DAY):
        period_statement = statement_of(organization, shown, shown, ZoneInfo(zone))
        expected = [
            seq for seq, at in enumerate(times, start=1) if at.astimezone(ZoneInfo(zone)).date() == shown
        ]
        assert seqs(period_statement) == expected


def test_open_period_covers_the_whole_log() -> None:
    organization = make_log(50)

    assert seqs(statement_of(organization)) == list(range(1, 51))
    assert seqs(statement_of(organization, first=FIRST_DAY + 2 * DAY)) == [48, 49, 50]
    assert seqs(statement_of(organization, last=FIRST_DAY)) == list(range(1, 24))
    assert statement_of(organization).opening == 0
    assert statement_of(organization).closing == organization.balance_kopecks


@pytest.mark.parametrize("days", [-400, 400])
def test_empty_period_has_equal_opening_and_closing_balance(days: int) -> None:
    organization = make_log(10)

    period_statement = statement_of(organization, FIRST_DAY + days * DAY, FIRST_DAY + days * DAY)

    assert period_statement.opening == period_statement.closing == (total(10) if days > 0 else 0)
    assert (
        period_statement.turnover,
        period_statement.count,
        seqs(period_statement),
        period_statement.page(),
        period_statement.chart_entries(),
    ) == (0, 0, [], [], [])


def test_each_entry_is_on_one_day_when_clocks_disagree() -> None:
    organization = append(make_log(40), 40, clock=timedelta(hours=-30))  # by a worker with a slow clock

    days = [statement_of(organization, FIRST_DAY + n * DAY, FIRST_DAY + n * DAY) for n in range(5)]

    assert [seq for period_statement in days for seq in seqs(period_statement)] == list(range(1, 81))
    assert all(a.closing == b.opening for a, b in pairwise(days))


def test_statement_excludes_entries_posted_while_it_is_read() -> None:
    post_payments(terms(1_00), terms(2_00))
    period_statement = statement_of(Organization.objects.get())
    entries = period_statement.entries()
    read = [next(entries)]

    post_payments(terms(4_00))

    read += list(entries)
    assert [entry.amount_kopecks for entry in read] == [1_00, 2_00]
    assert period_statement.opening + sum(entry.amount_kopecks for entry in read) == period_statement.closing
    assert [entry.seq for entry in period_statement.page()] == [2, 1]


@pytest.mark.parametrize("count", [1, 2, 99, 100, 101, 199, 1057])
def test_chart_has_bounded_points_and_the_last_entry(count: int) -> None:
    chart_entries = statement_of(make_log(count)).chart_entries()

    assert chart_entries[-1].seq == count
    assert len(chart_entries) <= CHART_POINTS_MAX
    assert len({b.seq - a.seq for a, b in pairwise(chart_entries)}) <= 1


@requires_mysql_explain
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("query", [{}, {"first": "2024-05-01", "last": "2024-05-20"}, {"before": "700"}])
def test_statement_takes_index_lookups_only(query: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    # With larger chunks MySQL rightly reads so small a table from end to end.
    monkeypatch.setattr(statement, "CHUNK_ENTRIES", 100)
    organization = make_log(LONG)
    make_log(LONG, inn=VASILEK)
    viewed = queries.find_organization(ROMASHKA)
    assert viewed

    def read() -> None:
        days = [date.fromisoformat(query[name]) if name in query else None for name in ("first", "last")]
        period_statement = statement_of(viewed, *days)
        period_statement.page(int(query.get("before", 0)) or None)
        period_statement.chart_entries()
        list(period_statement.entries())

    assert organization.last_seq == LONG
    assert_index_lookups_only(read)
