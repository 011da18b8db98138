import json
from collections.abc import Iterator
from io import StringIO
from typing import Any
from unittest.mock import ANY

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection
from django.utils import timezone

from ingest import verification
from ingest.management.commands import verify_ledger
from ingest.models import LedgerVerification, Webhook
from ledger.models import BalanceLog, Organization
from tests.corruption import raw_delete, rolled_back, unconstrained_tables
from tests.factories import MIDNIGHT_IN_MOSCOW, ROMASHKA, VASILEK, make_webhook, post_payments, terms

committed = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ledger() -> None:
    for payment in (terms(100_00), terms(20_50), terms(7_00, inn=VASILEK)):
        make_webhook(payment, status=Webhook.Status.APPLIED, applied_at=timezone.now())
        post_payments(payment)


@pytest.fixture
def unconstrained_ledger(ledger: None) -> Iterator[None]:
    with unconstrained_tables():
        yield


def run(*arguments: str) -> tuple[int | str | None, str]:
    """Return the exit code and the output."""
    output = StringIO()
    try:
        call_command("verify_ledger", *arguments, stdout=output)
    except SystemExit as end:
        return end.code, output.getvalue()
    return 0, output.getvalue()


def run_json() -> tuple[int | str | None, dict[str, Any]]:
    code, output = run("--json")
    return code, json.loads(output)


@pytest.mark.django_db
def test_consistent_ledger_is_one_line_and_exit_code_0(
    ledger: None, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    code, output = run()

    assert code == 0
    assert output.startswith("All is right: 2 organizations, 3 entries, 3 payments, 3 webhooks in ")
    assert output.endswith(" rows/s\n")
    assert output.count("\n") == 1
    assert capsys.readouterr() == ("", "")


@pytest.mark.django_db
def test_consistent_ledger_as_json(ledger: None) -> None:
    code, report = run_json()

    assert code == 0
    assert report.pop("seconds") > 0
    assert report.pop("rows_per_second") > 0
    assert report == {
        "right": True,
        "drift": None,
        "drifts": [],
        "drifts_found": 0,
        "full": True,
        "organizations": 2,
        "entries": 3,
        "payments": 3,
        "webhooks": 3,
    }


@committed
def test_drift_is_a_sentence_and_exit_code_1(unconstrained_ledger: None) -> None:
    Organization.objects.filter(inn=ROMASHKA).update(balance_kopecks=120_51)

    code, output = run()

    assert code == 1
    assert output.replace("\N{NO-BREAK SPACE}", " ").splitlines()[0] == (
        f"Drift: organization {ROMASHKA}: the balance is the balance after the last entry; "
        "expected 120,50 ₽, found 120,51 ₽"
    )


@committed
def test_drift_as_json_is_in_kopecks(unconstrained_ledger: None) -> None:
    BalanceLog.objects.filter(organization__inn=ROMASHKA, seq=2).update(balance_after_kopecks=120_51)

    code, report = run_json()

    assert code == 1
    assert report["right"] is False
    drift = report["drift"]
    assert "entry 2" in drift.pop("sentence")
    assert drift == {
        "what": "balance_after_kopecks",
        "rule": "the balance after an entry is the balance before, plus its amount",
        "expected": 120_50,
        "found": 120_51,
        "inn": ROMASHKA,
        "seq": 2,
        "operation_id": None,
    }


@committed
def test_drift_between_inbox_and_ledger_is_found(unconstrained_ledger: None) -> None:
    webhook = Webhook.objects.get(payer_inn=VASILEK)
    raw_delete(Webhook.objects.filter(payer_inn=VASILEK))

    code, report = run_json()

    assert code == 1
    assert (report["drift"]["what"], report["drift"]["operation_id"]) == (
        "webhook",
        str(webhook.operation_id),
    )


@committed
def test_orphaned_entry_hides_no_other_drift(unconstrained_ledger: None) -> None:
    """The application's user can insert such an entry with foreign_key_checks = 0, and never delete it."""
    organization = Organization.objects.get(inn=ROMASHKA)
    entry = BalanceLog.objects.get(organization=organization, seq=1)
    entry.pk, entry.seq, entry.organization_id = 10**6, 1, 10**6
    entry.save(force_insert=True)
    Organization.objects.filter(inn=VASILEK).update(balance_kopecks=7_01)

    code, report = run_json()

    assert code == 1
    found = [(drift["what"], drift["inn"]) for drift in report["drifts"]]
    assert ("balance_kopecks", VASILEK) in found
    assert report["drifts_found"] == len(found) > 1
    saved = LedgerVerification.objects.get()
    assert (saved.drifts_found, saved.drift.count("\n") + 1) == (len(found), len(found))


@committed
def test_drifts_beyond_the_shown_ones_are_counted(
    unconstrained_ledger: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "DRIFTS_SHOWN_MAX", 1)
    Organization.objects.update(balance_kopecks=1)

    code, output = run()
    assert code == 1
    assert output.count("Drift: ") == 1
    assert "\n2 drifts, the first 1 of them above\n" in output
    monkeypatch.setattr(verification, "DRIFTS_COUNTED_MAX", 1)
    assert run_json()[1]["drifts_found"] == 1


# Corruptions that a run over new rows finds; it finds those of test_verification.py, too.
NEW = {
    "changed balance": lambda: Organization.objects.filter(inn=VASILEK).update(balance_kopecks=1),
    "changed balance after an entry": lambda: entry(3).update(balance_after_kopecks=1),
    "changed amount of an entry": lambda: entry(3).update(amount_kopecks=1),
    "changed moment of an entry": lambda: entry(3).update(created_at=MIDNIGHT_IN_MOSCOW),
    "removed entry": lambda: raw_delete(entry(3)),
    "removed entry before the last": lambda: raw_delete(entry(4)),
    "entry of no organization": lambda: entry(4).update(organization=99, seq=1),
    "entry of another payment": lambda: entry(4).update(payment=entry(3).get().payment_id),
    "webhook with another amount": lambda: Webhook.objects.filter(amount_kopecks=3_00).update(
        amount_kopecks=1
    ),
    "webhook with another body": lambda: Webhook.objects.filter(amount_kopecks=3_00).update(body=b"{}"),
}


def entry(seq: int) -> Any:
    return BalanceLog.objects.filter(organization__inn=ROMASHKA, seq=seq)


@committed
def test_incremental_run_finds_drift_in_new_rows(
    ledger: None, subtests: pytest.Subtests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "OVERLAP_ROWS", 0)
    run()
    for payment in (terms(3_00), terms(4_00)):
        make_webhook(payment, status=Webhook.Status.APPLIED, applied_at=timezone.now())
        post_payments(payment)
    with unconstrained_tables():
        for name, corrupt in NEW.items():
            with subtests.test(name), rolled_back():
                corrupt()
                assert run("--incremental")[0] == 1
        assert run("--incremental") == (0, ANY)


@committed
def test_drift_in_old_rows_is_found_by_a_full_run_and_every_run_until_it_is_gone(
    unconstrained_ledger: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "OVERLAP_ROWS", 0)
    run()
    BalanceLog.objects.filter(amount_kopecks=20_50).update(amount_kopecks=20_51)

    assert run("--incremental")[0] == 0
    assert run()[0] == 1
    assert run("--incremental")[0] == 1
    BalanceLog.objects.filter(amount_kopecks=20_51).update(amount_kopecks=20_50)
    assert run("--incremental")[0] == 0
    assert [saved.is_full for saved in LedgerVerification.objects.order_by("pk")] == [
        True,
        False,
        True,
        True,
        True,
    ]


@committed
def test_unreadable_database_is_exit_code_2() -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE ledger_balancelog RENAME TO elsewhere")
        try:
            with pytest.raises(CommandError, match=r"could not be read: .*balancelog") as raised:
                run()
        finally:
            cursor.execute("ALTER TABLE elsewhere RENAME TO ledger_balancelog")
    assert raised.value.returncode == 2


@pytest.mark.django_db
def test_long_run_in_a_terminal_shows_a_progress_bar(
    ledger: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(verify_ledger, "BAR_AFTER_SECONDS", 0.0)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")

    assert run()[0] == 0

    assert "bodies" in capsys.readouterr().err


@pytest.mark.django_db
def test_long_run_before_the_first_payment_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    make_webhook()
    monkeypatch.setattr(verify_ledger, "BAR_AFTER_SECONDS", 0.0)

    assert run()[0] == 0


@committed
def test_result_is_saved_for_the_dashboard(unconstrained_ledger: None) -> None:
    run()
    right = LedgerVerification.objects.get()
    assert (right.drift, right.rows_scanned > 0, right.duration.total_seconds() > 0) == ("", True, True)

    Organization.objects.filter(inn=ROMASHKA).update(balance_kopecks=120_51)
    run("--json")
    assert ROMASHKA in LedgerVerification.objects.latest("pk").drift


@pytest.mark.django_db
def test_only_the_latest_results_are_kept(ledger: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "RESULTS_KEPT_MAX", 2)
    for _ in range(4):
        run()
    assert LedgerVerification.objects.count() == 2


@pytest.mark.django_db
def test_read_only_user_gets_the_result_printed(
    ledger: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise DatabaseError("INSERT command denied")

    monkeypatch.setattr(LedgerVerification, "save", refuse)
    code, output = run()

    assert (code, output.startswith("All is right")) == (0, True)
    assert "could not be saved" in capsys.readouterr().err
