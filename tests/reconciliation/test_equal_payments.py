"""Many equal payments are paired in order, by as many statements as few of them."""

from collections.abc import Callable, Iterable
from datetime import date
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from statements.importing import import_statement
from statements.matching import match
from statements.models import Match, OwnAccount, Proposal, StatementLine
from statements.pairing import Candidate, pair_nearest
from tests.reconciliation.scenarios import statement_of, store
from tests.statements.files import OWN

FEW, MANY = 3, 30
Pairs = Iterable[tuple[int, int]]
Vary = Callable[[int], tuple[dict[str, Any], dict[str, Any]]]  # terms of a webhook and of its line


def near(_number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    return {}, {"date": "2026-03-12", "booked_on": "2026-03-12"}


def amount_differs(number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"kopecks": 1000 + number}, {"kopecks": 2000 + number}


def payer_differs(_number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    return {}, {"inn": "0044004404"}


def matches() -> Pairs:
    return Match.objects.filter(live=True).values_list("line__position", "webhook_id")


def proposals() -> Pairs:
    return Proposal.objects.values_list("line__position", "webhook_id")


def line(number: int, **fields: Any) -> dict[str, Any]:
    terms = {"inn": "0033003303", "kopecks": 1000, "number": "7", "creditable": True, "reversal": False}
    return terms | {"line": number, "date": "2026-03-10", "booked_on": "2026-03-10"} | fields


def webhook(number: int, **fields: Any) -> dict[str, Any]:
    at = "2026-03-10T12:00:00+03:00"
    terms = {"inn": "0033003303", "kopecks": 1000, "number": "7", "document_date": at, "status": "applied"}
    return terms | {"id": str(number)} | fields


def import_lines(*lines: dict[str, Any]) -> None:
    OwnAccount.objects.get_or_create(number=OWN, since=date(2026, 1, 1))
    import_statement(statement_of({"lines": lines, "webhooks": []}), "")


def paired(count: int, vary: Vary, found: Callable[[], Pairs]) -> tuple[list[tuple[int, int]], int]:
    """Match `count` webhooks with as many lines; return lines with webhooks, and the statements it took."""
    varied = [vary(number) for number in range(1, count + 1)]
    with transaction.atomic():
        numbers = {store(webhook(number, **each)).pk: number for number, (each, _) in enumerate(varied, 1)}
        import_lines(*(line(number, **each) for number, (_, each) in enumerate(varied, 1)))
        statements = count_statements(match)
        pairs = sorted((at, numbers[key]) for at, key in found())
        transaction.set_rollback(True)
    return pairs, statements


def count_statements(action: Callable[[], object]) -> int:
    with CaptureQueriesContext(connection) as queries:
        action()
    return len(queries)


@pytest.mark.parametrize(
    ("vary", "found"), [(near, matches), (amount_differs, proposals), (payer_differs, proposals)]
)
@pytest.mark.django_db
def test_equal_payments_are_paired_in_order_by_as_many_statements_as_few(
    vary: Vary, found: Callable[[], Pairs]
) -> None:
    few, statements_of_few = paired(FEW, vary, found)
    many, statements_of_many = paired(MANY, vary, found)

    assert few == [(number, number) for number in range(1, FEW + 1)]
    assert many == [(number, number) for number in range(1, MANY + 1)]
    assert statements_of_many == statements_of_few


@pytest.mark.django_db
def test_equal_reversals_take_back_equal_credits_by_as_many_statements_as_few() -> None:
    taken = {}
    for count in (FEW, MANY):
        with transaction.atomic():
            import_lines(*(line(number, reversal=number > count) for number in range(1, 2 * count + 1)))
            taken[count] = count_statements(match)
            reverses = StatementLine.objects.filter(reverses__isnull=False)
            pairs = sorted(reverses.values_list("reverses__position", "position"))
            transaction.set_rollback(True)
        assert pairs == [(number, count + number) for number in range(1, count + 1)]

    assert taken[MANY] == taken[FEW]


def test_ten_thousand_equal_payments_are_paired_without_comparing_each_with_each() -> None:
    """As a comparison of 10^8 pairs would take minutes."""
    equal = ("0033003303", 1000, "7")
    lines = [Candidate(*equal, number, 102, 103, number, None) for number in range(1, 10_001)]
    webhooks = [Candidate(*equal, number, 100, 100, None, number) for number in range(1, 10_001)]

    assert list(pair_nearest([[*lines, *webhooks]], 5)) == [(number, number) for number in range(1, 10_001)]
