from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection
from django.utils import timezone

from core.db import clock
from ingest import doorbell, inbox
from ingest.models import LedgerVerification, Webhook
from monitoring import doctor
from tests.corruption import failing_inbox
from tests.factories import make_webhook
from worker import applying
from worker.models import Heartbeat

pytestmark = pytest.mark.django_db(transaction=True)


def examined() -> tuple[str, int]:
    out = StringIO()
    try:
        call_command("doctor", stdout=out)
    except SystemExit as ended:
        return out.getvalue(), int(ended.code or 0)
    return out.getvalue(), 0


@pytest.fixture(autouse=True)
def development(settings: Any) -> None:
    settings.DEBUG = True  # as the tests' settings are; Django's runner says otherwise


@pytest.fixture
def a_healthy_house() -> None:
    now = clock.database_now()
    for kind in Heartbeat.Kind:
        Heartbeat.objects.create(name=f"{kind}@here", kind=kind, processes=1, seen_at=now)
    LedgerVerification.objects.create(duration=timedelta(seconds=1), rows_scanned=0)


@pytest.mark.usefixtures("a_healthy_house")
def test_a_healthy_house_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "REDO_LOG_BYTES_MIN", 2**20)
    told, status = examined()
    assert status == 0, told
    assert "!!" not in told
    for part in ("settings", "broker", "database", "clock", "worker", "scheduler", "inbox", "ledger"):
        assert f"ok  {part}" in told


@pytest.mark.usefixtures("a_healthy_house")
def test_what_only_another_user_can_see_is_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """The application's own user may not see triggers: deploy/mysql/grants.sql."""
    monkeypatch.setattr("ledger.triggers.visible", lambda _: False)
    monkeypatch.setattr(doctor, "REDO_LOG_BYTES_MIN", 2**20)

    told, status = examined()

    assert status == 0, told
    assert "(ledger.I001)" in told
    assert "up to date" in told


@pytest.mark.usefixtures("a_healthy_house")
def test_what_the_settings_silence_is_not_said(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.triggers.visible", lambda _: False)
    settings.SILENCED_SYSTEM_CHECKS = ["ledger.I001"]

    assert "ledger.I001" not in examined()[0]


def test_an_empty_house_is_told_to_start_its_programs() -> None:
    told, status = examined()
    assert status == 1
    assert told.count("none is known to run") == 2
    assert "was never verified" in told


@pytest.mark.usefixtures("a_healthy_house")
def test_silence_backlog_failures_and_drift_are_named_with_what_to_do() -> None:
    Heartbeat.objects.filter(kind=Heartbeat.Kind.WORKER).update(
        seen_at=clock.database_now() - timedelta(minutes=5)
    )
    LedgerVerification.objects.update(drift="balance of 7707083893: 1 expected, 2 found")
    inbox.record_unrecognized(inbox.Delivery(b"{}", "tbank"), b"{}", "why")
    make_webhook()
    Webhook.objects.update(status=Webhook.Status.FAILED)
    make_webhook()
    Webhook.objects.update(received_at=timezone.now() - timedelta(minutes=10))

    told, status = examined()

    assert status == 1
    for part in ("worker", "inbox", "ledger"):
        assert f"!!  {part}" in told
    assert "manage.py replay --failed" in told
    assert "1 unrecognized deliveries are open" in told
    assert "docs/runbook.md#unrecognized-deliveries" in told
    assert "2 found" in told


@pytest.mark.usefixtures("a_healthy_house")
@pytest.mark.skipif(connection.vendor != "mysql", reason="SQLite has no redo log of a size")
def test_a_small_redo_log_is_named() -> None:
    assert "!!  database   its redo log holds" in examined()[0]


@pytest.mark.usefixtures("a_healthy_house")
def test_an_inbox_that_takes_nothing_is_named() -> None:
    with failing_inbox("The table is full"):
        told, status = examined()
    assert status == 1
    assert "!!  inbox      takes no webhook: The table is full" in told
    assert "docs/runbook.md#delivery-errors" in told


@pytest.mark.usefixtures("a_healthy_house")
def test_a_posting_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def post(*_: object) -> None:
        raise OperationalError(1054, "Unknown column 'document_date'")

    monkeypatch.setattr(applying, "post", post)

    told, status = examined()

    assert status == 1
    assert "!!  ledger     a trial posting fails: Unknown column 'document_date'" in told
    assert "docs/runbook.md#posting-failing" in told


def test_clocks_apart_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    now = clock.database_now()
    monkeypatch.setattr(timezone, "now", lambda: now + timedelta(minutes=1))
    monkeypatch.setattr(clock, "database_now", lambda: now)
    assert "!!  clock" in examined()[0]


@pytest.mark.usefixtures("a_healthy_house")
def test_a_broker_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> int:
        raise ConnectionRefusedError("nobody listens")

    monkeypatch.setattr(doorbell, "queue_length", away)
    told, status = examined()
    assert status == 1
    assert "!!  broker     does not answer: nobody listens" in told


def test_a_database_that_is_away_is_named_and_ends_the_examination(monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> Any:
        raise doctor.InterfaceError(2003, "Can't connect to MySQL server")

    monkeypatch.setattr(doctor, "_database", away)
    told, status = examined()
    assert status == 1
    assert "!!  database   Can't connect to MySQL server" in told
