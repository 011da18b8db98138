"""Past balances, on a log whose entry n is n rubles, written n hours after MIDNIGHT_IN_MOSCOW."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from ledger.models import BalanceLog, Organization, Payment
from ledger.queries import FAN_OUT, balance_at, history
from tests.factories import MIDNIGHT_IN_MOSCOW, ROMASHKA, VASILEK, make_organizations, post_payments, terms
from tests.query_plans import assert_index_lookups_only, requires_mysql_explain

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)
INSTANT = timedelta(microseconds=1)
LONG = FAN_OUT**2 + FAN_OUT + 1  # long enough for a search in three steps


def at(hours: int) -> datetime:
    return MIDNIGHT_IN_MOSCOW + hours * HOUR


def total(count: int) -> int:
    """Return the kopecks after `count` entries."""
    return count * (count + 1) // 2 * 1_00


def make_log(count: int, inn: str = ROMASHKA) -> Organization:
    return append(Organization.objects.create(inn=inn, opened_at=at(0)), count)


def append(
    organization: Organization, count: int, clock: timedelta = timedelta(), times: Sequence[datetime] = ()
) -> Organization:
    """Insert entries with chosen times, which posting would read from the clock."""
    seqs = range(organization.last_seq + 1, organization.last_seq + count + 1)
    common: Any = {"document_number": "1", "document_date": at(0), "organization": organization}
    payments = [
        Payment(operation_id=uuid4(), amount_kopecks=seq * 1_00, created_at=created_at, **common)
        for seq, created_at in zip(seqs, times or [at(seq) + clock for seq in seqs], strict=True)
    ]
    Payment.objects.bulk_create(payments)
    keys = dict(Payment.objects.values_list("operation_id", "id"))  # MySQL returns none
    BalanceLog.objects.bulk_create(
        BalanceLog(
            organization=organization,
            seq=seq,
            payment_id=keys[payment.operation_id],
            amount_kopecks=payment.amount_kopecks,
            balance_after_kopecks=total(seq),
            created_at=payment.created_at,
        )
        for seq, payment in zip(seqs, payments, strict=True)
    )
    organization.last_seq += count
    organization.balance_kopecks = total(organization.last_seq)
    organization.save()
    return organization


@pytest.mark.parametrize("count", [0, 1, 2, FAN_OUT - 1, FAN_OUT, FAN_OUT + 1, LONG])
def test_balance_at_an_instant_is_after_the_last_entry_by_then(count: int) -> None:
    organization = make_log(count)
    make_log(40, inn=VASILEK)

    for seq in {0, 1, 2, FAN_OUT - 1, FAN_OUT, FAN_OUT + 1, count // 2, count - 1, count} & {
        *range(count + 1)
    }:
        assert balance_at(organization, at(seq)) == total(seq)
        assert balance_at(organization, at(seq) + HOUR - INSTANT) == total(seq)
        assert balance_at(organization, at(seq) - INSTANT) == total(max(seq - 1, 0))
    assert balance_at(organization, datetime(9999, 12, 31, tzinfo=UTC)) == organization.balance_kopecks


def test_entries_of_one_batch_share_one_instant() -> None:
    post_payments(*(terms(1_00) for _ in range(50)))
    organization = Organization.objects.get()
    (instant,) = set(organization.log.values_list("created_at", flat=True))

    assert balance_at(organization, instant) == 50_00
    assert balance_at(organization, instant - INSTANT) == 0


def test_past_balances_are_stable_when_clocks_disagree_and_the_log_grows() -> None:
    organization = make_log(FAN_OUT - 3)
    organization = append(organization, FAN_OUT * 2, clock=-5 * HOUR)  # by a worker with a slow clock
    moments = [at(hours) for hours in range(FAN_OUT)]
    before = [balance_at(organization, moment) for moment in moments]

    append(organization, LONG)

    assert [balance_at(organization, moment) for moment in moments] == before


def seqs(organization: Organization, limit: int = 3, **bounds: Any) -> list[int]:
    return [entry.seq for entry in history(organization, limit=limit, **bounds)]


def test_history_pages_both_ways_newest_first() -> None:
    organization = make_log(10)

    assert seqs(organization) == [10, 9, 8]
    assert seqs(organization, before=8) == [7, 6, 5]
    assert seqs(organization, after=4) == [7, 6, 5]
    assert seqs(organization, after=7) == [10, 9, 8]
    assert seqs(organization, after=8) == [10, 9]
    assert (
        seqs(organization, after=10)
        == seqs(organization, after=2**63 - 1)
        == seqs(organization, before=1)
        == []
    )


def test_history_period_includes_from_and_excludes_to() -> None:
    organization = make_log(10)

    assert seqs(organization, since=at(3), until=at(6)) == [5, 4, 3]
    assert seqs(organization, since=at(9)) == [10, 9]
    assert seqs(organization, until=at(3)) == [2, 1]
    assert seqs(organization, since=at(11)) == seqs(organization, until=at(1)) == []
    assert seqs(organization, since=at(6), until=at(3)) == []
    assert seqs(organization, since=at(2), until=at(9), before=5) == [4, 3, 2]
    assert seqs(organization, since=at(2), until=at(9), after=1) == [4, 3, 2]
    assert seqs(organization, since=at(2), until=at(9), after=7) == [8]
    assert seqs(organization, since=at(4), before=3) == seqs(organization, until=at(4), after=5) == []


# --- parameters of the API -----------------------------------------------------------------------------

BALANCE = f"/api/organizations/{ROMASHKA}/balance/"


def get_json(path: str, status: int = 200, **query: str) -> Any:
    response = Client().get(path, query)
    assert response.status_code == status
    return json.loads(response.content)


def test_balance_and_history_accept_any_utc_offset() -> None:
    make_log(10)

    assert get_json(BALANCE, at="2024-04-28T00:00:00Z") == {"inn": ROMASHKA, "balance": 6, "settled": True}
    assert get_json(BALANCE, at="2024-04-28T03:00:00+03:00") == {
        "inn": ROMASHKA,
        "balance": 6,
        "settled": True,
    }
    assert get_json(BALANCE, at="2020-01-01T00:00Z")["balance"] == 0
    assert get_json(BALANCE, at="9999-12-31T23:59:59-23:00")["balance"] == 55
    period = {"from": "2024-04-28T00:00:00+03:00", "to": "2024-04-28T03:00:00+03:00"}
    assert [entry["seq"] for entry in get_json(f"{BALANCE}history/", **period)["history"]] == [2, 1]
    assert [entry["seq"] for entry in get_json(f"{BALANCE}history/", after="8")["history"]] == [10, 9]


@pytest.mark.parametrize(
    "value",
    [
        *(
            "",
            "now",
            "2024-04-28",
            "2024-04-28T00:00:00",
            "2024-04-28T00:00:00 03:00",
            "0001-01-01T00:00Z",
            "1",
        ),
        *("2024-04-27T24:00:00Z", "2024-04-27T21.5Z"),
    ],
)
@pytest.mark.parametrize(("path", "name"), [("", "at"), ("history/", "from"), ("history/", "to")])
def test_invalid_datetime_is_refused(path: str, name: str, value: str) -> None:
    make_organizations(ROMASHKA)

    (message,) = get_json(BALANCE + path, 400, **{name: value}).values()
    assert message.startswith(f"{name}: must be an ISO 8601 date and time with an offset")


def test_before_and_after_together_are_refused() -> None:
    assert get_json(f"{BALANCE}history/", 400, before="9", after="1") == {
        "error": "before, after: give one of them"
    }


# --- cost ----------------------------------------------------------------------------------------------


@requires_mysql_explain
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("query", ["?at={}", "history/?from={}", "history/?to={}", "history/?after=500"])
def test_past_balance_takes_index_lookups_only(client: Client, query: str) -> None:
    make_log(LONG)
    make_log(LONG, inn=VASILEK)

    assert_index_lookups_only(lambda: client.get(BALANCE + query.format("2024-05-08T00:00Z")))


def test_search_in_a_million_entries_takes_four_queries() -> None:
    organization = make_log(10)
    organization.last_seq = 1_000_000

    with CaptureQueriesContext(connection) as queries:
        balance_at(organization, at(5))

    assert len(queries) == 4 + 1
