"""Importing is idempotent, also at the same time; the newest proven statement decides; nothing is lost."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, transaction

from statements import coverage, rejecting
from statements.coverage import Period
from statements.importing import Imported, StatementRefused, import_statement
from statements.models import BankStatement, LineSighting, OwnAccount, RejectedStatement, StatementLine
from tests.concurrency import run_concurrently
from tests.statements.files import OWN, document, section, statement

CORPUS = Path(__file__).parent / "corpus"


def own_account(number: str = OWN) -> OwnAccount:
    return OwnAccount.objects.create(number=number, since=date(2026, 1, 1))


def written(*documents: str, on: str, total: str = "10.00", **fields: str) -> bytes:
    balances = section(**{"ВсегоПоступило": total, "КонечныйОстаток": total, **fields})
    return statement(balances, *documents, ДатаСоздания=on, ВремяСоздания="09:00:00").encode("cp1251")


def numbers(**condition: Any) -> list[str]:
    return list(StatementLine.objects.filter(**condition).order_by("number").values_list("number", flat=True))


@pytest.mark.django_db
def test_same_bytes_again_change_nothing() -> None:
    own_account()
    body = written(document(), on="03.03.2026")

    first, again = import_statement(body, "one"), import_statement(body, "two")

    assert (first.new_lines, again.new_lines, again.known_lines) == (1, 0, 1)
    assert again.statement == first.statement
    assert LineSighting.objects.count() == 1


@pytest.mark.django_db
def test_equal_documents_of_one_file_are_two_lines() -> None:
    own_account()
    import_statement((CORPUS / "51-two-equal-documents.txt").read_bytes(), "")

    assert list(StatementLine.objects.values_list("ordinal", flat=True)) == [1, 2]


@pytest.mark.django_db
@pytest.mark.parametrize("older_first", [True, False])
def test_line_that_a_newer_proven_statement_lacks_is_withdrawn(older_first: bool) -> None:
    own_account()
    older = written(document(Номер="7"), document(Номер="8"), on="03.03.2026", total="20.00")
    newer = written(document(Номер="8"), on="04.03.2026")

    for body in (older, newer) if older_first else (newer, older):
        import_statement(body, "")

    assert numbers(is_withdrawn=True) == ["7"]
    import_statement(
        written(document(Номер="7"), document(Номер="8"), on="05.03.2026", total="20.00"), "restored"
    )
    assert numbers(is_withdrawn=True) == []


@pytest.mark.django_db
def test_line_of_a_newer_unproven_statement_is_not_withdrawn() -> None:
    own_account()
    import_statement(written(document(Номер="8"), on="03.03.2026"), "proven")
    import_statement(written(document(Номер="7"), on="04.03.2026", total="20.00"), "its sums fail")

    assert numbers(is_withdrawn=True) == []


@pytest.mark.django_db
def test_unproven_statement_withdraws_nothing() -> None:
    own_account()
    import_statement(written(document(), on="03.03.2026"), "")
    import_statement(written(on="04.03.2026"), "its sums fail")

    assert numbers(is_withdrawn=True) == []


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty: "),
        (b"<html>", "not_1c: "),
        (written(document(), on="03.03.2026"), f"account {OWN} is not one of ours"),
    ],
)
def test_refused_file_is_recorded_and_nothing_is_taken(body: bytes, reason: str) -> None:
    with pytest.raises(StatementRefused, match=reason):
        import_statement(body, "file.txt")

    rejected = RejectedStatement.objects.get()
    assert rejected.reason.startswith(reason)
    assert bytes(rejected.body) == body
    assert not BankStatement.objects.exists()


@pytest.mark.django_db
def test_rejected_statements_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rejecting, "REJECTED_MAX", 3)
    for number in range(5):
        rejecting.record_rejected(f"{number}", b"x" * 100_000, "empty")

    assert list(RejectedStatement.objects.order_by("pk").values_list("name", flat=True)) == ["2", "3", "4"]
    assert {len(row.body) for row in RejectedStatement.objects.all()} == {rejecting.BODY_BYTES_MAX}


@pytest.mark.django_db
def test_day_is_covered_once_it_was_over_and_proven_for_every_active_account() -> None:
    account = own_account()
    import_statement(written(document(), on="02.03.2026"), "written on its last day")

    assert coverage.covered_periods(account) == [Period(date(2026, 3, 1), date(2026, 3, 1))]
    assert coverage.fully_covered_periods() == coverage.covered_periods(account)
    other = own_account("40702810200000000002")
    assert coverage.fully_covered_periods() == []
    other.since = date(2026, 3, 2)
    other.save()
    assert coverage.fully_covered_periods() == coverage.covered_periods(account)


@pytest.mark.django_db
def test_closing_balance_that_is_not_the_next_opening_balance_is_found() -> None:
    """I10"""
    own_account()
    import_statement(written(document(), on="03.03.2026"), "")
    following = {"ДатаНачала": "03.03.2026", "ДатаКонца": "03.03.2026", "НачальныйОстаток": "10.00"}
    import_statement(written(on="04.03.2026", total="10.00", ВсегоПоступило="0.00", **following), "")
    assert list(coverage.breaks()) == []

    wrong = following | {"НачальныйОстаток": "9.00", "КонечныйОстаток": "9.00"}
    import_statement(statement(section(ВсегоПоступило="0.00", **wrong)).encode("cp1251"), "")
    assert list(coverage.breaks()) == [coverage.Break(OWN, date(2026, 3, 2), 1000, 900)]


@pytest.mark.django_db
def test_database_refuses_to_change_or_delete_what_a_bank_said() -> None:
    own_account()
    import_statement(written(document(), on="03.03.2026"), "")
    forbidden: list[Callable[[], object]] = [
        lambda: StatementLine.objects.update(kopecks=1),
        lambda: StatementLine.objects.all()._raw_delete("default"),
        lambda: LineSighting.objects.update(position=2),
        lambda: BankStatement.objects.update(verdict="unproven"),
    ]
    for change in forbidden:
        with pytest.raises(DatabaseError), transaction.atomic():
            change()


@pytest.mark.django_db(transaction=True)
def test_files_imported_at_the_same_time_store_each_line_once() -> None:
    own_account()
    bodies = [(CORPUS / f"52{name}.txt").read_bytes() for name in ("a-overlap-first", "b-overlap-second")]

    def action(body: bytes) -> Callable[[], Imported]:
        return lambda: import_statement(body, "")

    imported = run_concurrently([action(body) for body in bodies * 3])

    assert StatementLine.objects.count() == sum(result.new_lines for result in imported) == 4
    assert BankStatement.objects.count() == 2
    assert LineSighting.objects.count() == 5
