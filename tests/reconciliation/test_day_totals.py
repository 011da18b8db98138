"""What pages sum from days is at every moment what the lines come to, also while others write."""

from collections.abc import Iterable
from contextlib import suppress
from functools import partial

import pytest
from django.db.models import F

from core.db import transactions
from core.db.snapshot import snapshot
from ingest.exceptions import NothingToDo
from ingest.models import OperatorAction
from statements import buckets, day_totals, standing
from statements.buckets import Scope
from statements.importing import import_statement
from statements.matching import match
from statements.models import Bucket, DayTotal, OwnAccount, StatementLine
from tests.concurrency import run_concurrently
from tests.reconciliation.reference import assert_totals_are_right
from tests.reconciliation.settlement import (
    apply_and_match,
    import_lines,
    line,
    lines_in,
    notify,
    settle,
    statement_of,
)

Kind = OperatorAction.Kind
R = "0033003303"
ROUNDS = 6


def import_numbers(numbers: Iterable[int], written: str) -> None:
    documents = [line(R, str(number), number * 100) for number in numbers]
    import_lines(*documents, came_in=sum(numbers) * 100, ВремяСоздания=written)


def stored() -> dict[str, int]:
    return dict(DayTotal.objects.values_list("bucket", "lines"))


@pytest.mark.django_db
def test_totals_follow_each_matching_and_are_deleted_by_each_change() -> None:
    import_numbers([1, 2, 3], "09:00:00")
    assert stored() == {"missing_webhook": 3}
    notify(R, "1", 100)
    apply_and_match()
    assert stored() == {"missing_webhook": 2, "matched": 1}

    for numbers, written, found in (
        ([1, 2, 3, 4], "10:00:00", {"missing_webhook": 3, "matched": 1}),
        ([1, 4], "11:00:00", {"missing_webhook": 1, "matched": 1, "outside": 2}),
    ):
        lines = (line(R, str(number), number * 100) for number in numbers)
        body = statement_of(*lines, came_in=sum(numbers) * 100, ВремяСоздания=written)
        import_statement(body, "one more line, and then two less")
        assert stored() == {}
        assert_totals_are_right()
        match()
        assert stored() == found

    settle(Kind.EXCLUDE, lines_in(Bucket.MISSING_WEBHOOK))
    assert stored() == {"excluded": 1, "matched": 1, "outside": 2}
    assert_totals_are_right()


@pytest.mark.django_db
def test_account_that_is_reconciled_later_has_other_totals() -> None:
    import_numbers([1, 2], "09:00:00")
    OwnAccount.objects.update(since="2026-04-01")

    match(is_full=True)

    assert stored() == {"outside": 2}


@pytest.mark.django_db
def test_matching_that_changes_nothing_keeps_the_totals() -> None:
    import_numbers([1, 2], "09:00:00")
    before = set(DayTotal.objects.values_list("pk", flat=True))

    match()

    assert set(DayTotal.objects.values_list("pk", flat=True)) == before


@pytest.mark.django_db
def test_day_with_an_undecided_line_has_no_totals() -> None:
    import_numbers([1, 2], "09:00:00")
    day_totals.undecide(StatementLine.objects.filter(number="1"))

    day_totals.fill()

    assert stored() == {}
    assert_totals_are_right()


@pytest.mark.django_db
@pytest.mark.parametrize("field", ["kopecks", "ledger", "received", "paid"])
def test_night_finds_wrong_totals_and_deletes_them(field: str) -> None:
    import_numbers([1, 2], "09:00:00")
    assert standing.check().unexplained == 0  # type: ignore[union-attr]
    DayTotal.objects.update(**{field: F(field) + 5})

    assert standing.check().unexplained == 5  # type: ignore[union-attr]

    assert stored() == {}
    assert_totals_are_right()


@pytest.mark.django_db
def test_wrong_totals_are_deleted_in_a_night_with_another_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    import_numbers([1, 2], "09:00:00")
    DayTotal.objects.update(received=F("received") + 5)
    monkeypatch.setattr(standing, "_unexplained", lambda _day: 7)

    assert standing.check().unexplained == 7  # type: ignore[union-attr]

    assert stored() == {}


def banks_files() -> None:
    for number in range(ROUNDS):
        import_numbers([each for each in range(1, 9) if each % 3 != number % 3], f"1{number}:00:00")


def operators() -> None:
    for number in range(ROUNDS):
        kind = (Kind.EXCLUDE, Kind.REOPEN, Kind.UNMATCH)[number % 3]
        lines = lines_in(Bucket.MISSING_WEBHOOK, Bucket.EXCLUDED, Bucket.MATCHED)
        with suppress(NothingToDo):  # an action's items lock lines one by one, as a matching does
            transactions.run_with_retries(partial(settle, kind, lines))


def webhooks() -> None:
    for number in range(1, ROUNDS):
        notify(R, str(number), number * 100)
        apply_and_match()


def reader() -> None:
    account = OwnAccount.objects.get().pk
    for _ in range(ROUNDS * 2):
        with snapshot():
            sums = day_totals.sums(account, day_totals.ALL_DAYS)
            assert buckets.totals(Scope(), sums) == buckets.totals(Scope())
            assert buckets.identity(Scope(), sums=sums).unexplained == 0
        assert_totals_are_right()


@pytest.mark.django_db(transaction=True)
def test_page_shows_one_moment_while_others_import_settle_and_notify() -> None:
    import_numbers(range(1, 9), "09:00:00")

    run_concurrently([banks_files, operators, webhooks, reader, reader])

    match()
    assert_totals_are_right()
    assert stored()
