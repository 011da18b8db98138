"""The export of postings as 1CClientBankExchange: our own reader proves every file."""

from datetime import UTC, date, timedelta
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from ledger.statement import Period
from statements import export_1c
from statements.export_1c import ExportTooLarge, export
from statements.models import OwnAccount
from statements.reading import StatementFile, read
from tests.admin_client import staff_client
from tests.factories import SUSPENSE, correct, post_payments, terms
from tests.markers import sqlite_run_only
from tests.screenshots.sample_statement import ACCOUNT

pytestmark = pytest.mark.django_db
PAYER, OTHER = "7707083893", "7736050003"
EXPORT = "/admin/statements/statementline/export/"


@pytest.fixture
def own() -> OwnAccount:
    return OwnAccount.objects.create(number=ACCOUNT, since=date(2026, 1, 1))


def today() -> date:
    return timezone.now().astimezone(UTC).date()


def period(first: date | None = None) -> Period:
    return Period(first or today(), today(), UTC)


def proven(body: bytes) -> StatementFile:
    found = read(body)
    assert (found.verdict, found.errors) == ("ok", ()), body.decode("cp1251")
    assert {warning.code for warning in found.warnings} <= {"day_not_over"}  # today is not
    return found


def test_file_has_the_payments_and_the_reversals_of_all_organizations(own: OwnAccount) -> None:
    first, second = terms(100_50, inn=PAYER, document_number="328"), terms(2_00, inn=OTHER)
    post_payments(first, second, terms(5_00, inn=SUSPENSE))
    correct(first)

    found = proven(export(own, period()))

    assert "328" in {doc.terms.number for doc in found.documents}
    assert sorted((doc.direction, doc.terms.amount) for doc in found.documents) == [
        *(("in", 2_00), ("in", 5_00), ("in", 100_50), ("out", 100_50)),
    ]
    only = proven(export(own, period(), PAYER))
    assert [doc.direction for doc in only.documents] == ["in", "out"]


@pytest.mark.parametrize(("inn", "balance"), [(PAYER, 7_00), (None, 9_00)])
def test_period_begins_with_the_balance_of_the_days_before(
    own: OwnAccount, inn: str | None, balance: int
) -> None:
    post_payments(terms(7_00, inn=PAYER), terms(2_00, inn=OTHER))
    tomorrow = today() + timedelta(days=1)

    found = proven(export(own, Period(tomorrow, tomorrow, UTC), inn))
    before = proven(export(own, period(), inn))

    assert (found.documents, found.accounts[0].sections[0].closing) == ((), balance)
    assert (before.accounts[0].sections[0].opening, before.accounts[0].sections[0].closing) == (0, balance)


def test_file_of_an_unknown_organization_has_no_payments(own: OwnAccount) -> None:
    post_payments(terms(7_00, inn=PAYER))

    found = proven(export(own, period(), OTHER))

    assert (found.documents, found.accounts[0].sections[0].closing) == ((), 0)


def test_file_is_not_read_from_the_database_of_the_read_api(own: OwnAccount, settings: Settings) -> None:
    post_payments(terms(100, inn=PAYER))
    settings.READ_DATABASE = "absent"

    assert len(proven(export(own, period(), PAYER)).documents) == 1


@sqlite_run_only
@given(text=st.text(st.characters(codec="utf-8"), max_size=60))
def test_any_document_number_stays_in_its_line(text: str) -> None:
    value = export_1c._printable(text)

    line = f"Номер={value}".encode("cp1251", "replace").decode("cp1251")
    assert len(line.splitlines()) == 1
    assert value == value.strip()


def test_numbers_outside_of_the_encoding_become_question_marks(own: OwnAccount) -> None:
    numbers = ["№ ✓", "a\r\nКонецФайла", "=", "СекцияДокумент=x", "\t", "日本\u2028語"]
    post_payments(*(terms(1_00, inn=PAYER, document_number=number) for number in numbers))

    found = proven(export(own, period()))

    assert len(found.documents) == len(numbers)
    assert {doc.terms.number for doc in found.documents} >= {"№ ?", "б/н", "a КонецФайла"}


def test_file_that_no_program_reads_is_refused(own: OwnAccount, monkeypatch: pytest.MonkeyPatch) -> None:
    post_payments(terms(1_00, inn=PAYER), terms(2_00, inn=PAYER))
    monkeypatch.setattr(export_1c, "DOCUMENTS_MAX", 1)
    first, last = today() - timedelta(days=1), today() + timedelta(days=1)

    with pytest.raises(ExportTooLarge):
        export(own, period())
    with pytest.raises(CommandError, match="choose a shorter period"):
        call_command("export_1c", f"--from={first}", f"--to={last}")
    answer = staff_client("view_statementline", "view_payment").get(
        EXPORT, {"first": first, "last": last}, follow=True
    )
    assert "Choose a shorter period" in answer.content.decode()


def test_command_writes_the_file(own: OwnAccount, tmp_path: Path) -> None:
    post_payments(terms(3_00, inn=PAYER))
    path = tmp_path / "export.txt"
    days = [f"--from={today() - timedelta(days=1)}", f"--to={today() + timedelta(days=1)}"]

    call_command("export_1c", *days, f"--inn={PAYER}", f"--output={path}")

    assert [doc.terms.amount for doc in proven(path.read_bytes()).documents] == [3_00]
    for wrong, message in (
        ("--inn=0000000000", "no organization"),
        ("--account=40702810900000009999", "no such own account"),
    ):
        with pytest.raises(CommandError, match=message):
            call_command("export_1c", *days, wrong)
    OwnAccount.objects.create(number="40702810900000009999", since=today())
    with pytest.raises(CommandError, match="name one own account with --account"):
        call_command("export_1c", *days)


def test_command_without_a_file_writes_bytes_to_standard_output(
    own: OwnAccount, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    call_command("export_1c", f"--from={today()}", f"--to={today()}")

    assert proven(capfdbinary.readouterr().out).accounts[0].account == ACCOUNT


def test_page_downloads_the_file_for_those_who_may_see_payments(own: OwnAccount) -> None:
    post_payments(terms(3_00, inn=PAYER))
    days = {"first": today() - timedelta(days=1), "last": today() + timedelta(days=1)}

    answer = staff_client("view_statementline", "view_payment").get(EXPORT, days | {"inn": PAYER})

    assert answer["Content-Type"] == "text/plain; charset=windows-1251"
    assert len(proven(answer.content).documents) == 1
    assert staff_client("view_statementline", name="vera").get(EXPORT, days).status_code == 403
