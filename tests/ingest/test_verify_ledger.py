import json
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection
from django.utils import timezone

from ingest.management.commands import verify_ledger
from ingest.models import Verification, Webhook
from ledger.models import BalanceLog, Organization
from tests.cast import ROMASHKA, VASILEK, posted, received, terms
from tests.planting import bare_tables, remove

committed = pytest.mark.django_db(transaction=True)


@pytest.fixture
def books() -> None:
    for told in (terms(100_00), terms(20_50), terms(7_00, inn=VASILEK)):
        received(told, status=Webhook.Status.APPLIED, applied_at=timezone.now())
        posted(told)


@pytest.fixture
def bare_books(books: None) -> Iterator[None]:
    with bare_tables():
        yield


def run(*arguments: str) -> tuple[int | str | None, str]:
    """The exit code and what was printed."""
    output = StringIO()
    try:
        call_command("verify_ledger", *arguments, stdout=output)
    except SystemExit as end:
        return end.code, output.getvalue()
    return 0, output.getvalue()


def run_for_programs() -> tuple[int | str | None, dict[str, Any]]:
    code, output = run("--json")
    return code, json.loads(output)


@pytest.mark.django_db
def test_a_right_ledger_is_one_line_of_figures_and_exit_code_0(
    books: None, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    code, output = run()

    assert code == 0
    assert output.startswith("All is right: 2 organizations, 3 lines, 3 payments, 3 webhooks in ")
    assert output.endswith(" rows/s\n")
    assert output.count("\n") == 1
    assert capsys.readouterr() == ("", "")


@pytest.mark.django_db
def test_a_right_ledger_for_programs(books: None) -> None:
    code, told = run_for_programs()

    assert code == 0
    assert told.pop("seconds") > 0
    assert told.pop("rows_per_second") > 0
    assert told == {
        "right": True,
        "drift": None,
        "organizations": 2,
        "lines": 3,
        "payments": 3,
        "webhooks": 3,
    }


@committed
def test_drift_is_named_in_words_with_exit_code_1(bare_books: None) -> None:
    Organization.objects.filter(inn=ROMASHKA).update(balance_kopecks=120_51)

    code, output = run()

    assert code == 1
    assert output.replace("\N{NO-BREAK SPACE}", " ").splitlines()[0] == (
        f"Drift: organization {ROMASHKA}: the balance is the one after the newest line; "
        "expected 120,50 ₽, found 120,51 ₽"
    )


@committed
def test_drift_is_named_for_programs_in_kopecks(bare_books: None) -> None:
    BalanceLog.objects.filter(organization__inn=ROMASHKA, seq=2).update(balance_after_kopecks=120_51)

    code, told = run_for_programs()

    assert code == 1
    assert told["right"] is False
    drift = told["drift"]
    assert "line 2" in drift.pop("sentence")
    assert drift == {
        "what": "balance_after_kopecks",
        "rule": "the balance after a line is the one before, plus its amount",
        "expected": 120_50,
        "found": 120_51,
        "inn": ROMASHKA,
        "seq": 2,
        "operation_id": None,
    }


@committed
def test_drift_between_inbox_and_ledger_is_found_too(bare_books: None) -> None:
    webhook = Webhook.objects.get(payer_inn=VASILEK)
    remove(Webhook.objects.filter(payer_inn=VASILEK))

    code, told = run_for_programs()

    assert code == 1
    assert (told["drift"]["what"], told["drift"]["operation_id"]) == ("webhook", str(webhook.operation_id))


@committed
def test_a_database_that_can_not_be_read_is_exit_code_2() -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE ledger_balancelog RENAME TO elsewhere")
        try:
            with pytest.raises(CommandError, match=r"could not be read: .*balancelog") as raised:
                run()
        finally:
            cursor.execute("ALTER TABLE elsewhere RENAME TO ledger_balancelog")
    assert raised.value.returncode == 2


@pytest.mark.django_db
def test_a_long_run_at_a_terminal_shows_a_bar(
    books: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(verify_ledger, "BAR_AFTER_SECONDS", 0.0)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")

    assert run()[0] == 0

    assert "webhooks" in capsys.readouterr().err


@committed
def test_the_result_is_kept_for_the_dashboard(bare_books: None) -> None:
    run()
    right = Verification.objects.get()
    assert (right.drift, right.rows_looked_at > 0, right.took.total_seconds() > 0) == ("", True, True)

    Organization.objects.filter(inn=ROMASHKA).update(balance_kopecks=120_51)
    run("--json")
    assert ROMASHKA in Verification.objects.latest("pk").drift


@pytest.mark.django_db
def test_only_the_newest_results_are_kept(books: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_ledger, "KEPT_MAX", 2)
    for _ in range(4):
        run()
    assert Verification.objects.count() == 2


@pytest.mark.django_db
def test_whoever_may_only_read_still_hears_the_result(
    books: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(**_: object) -> None:
        raise DatabaseError("INSERT command denied")

    monkeypatch.setattr(Verification.objects, "create", refuse)
    code, output = run()

    assert (code, output.startswith("All is right")) == (0, True)
    assert "could not be kept" in capsys.readouterr().err
