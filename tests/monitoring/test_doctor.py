from datetime import timedelta
from io import StringIO
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection
from django.utils import timezone

from core.db import clock
from ingest import doorbell, inbox
from ingest.models import LedgerVerification, Webhook
from monitoring import cluster, doctor
from monitoring.cluster import ClusterStatus
from monitoring.problems import server_problems
from tests.corruption import failing_inbox
from tests.factories import make_webhook
from worker import applying
from worker.models import Heartbeat

pytestmark = pytest.mark.django_db(transaction=True)


def run_doctor() -> tuple[str, int]:
    """Return the output and the exit code."""
    out = StringIO()
    try:
        call_command("doctor", stdout=out)
    except SystemExit as exc:
        return out.getvalue(), int(exc.code or 0)
    return out.getvalue(), 0


@pytest.fixture(autouse=True)
def development(settings: Any) -> None:
    settings.DEBUG = True  # as in the tests' environment; Django's runner sets it to False


@pytest.fixture
def healthy_system() -> None:
    now = clock.database_now()
    for kind in Heartbeat.Kind:
        Heartbeat.objects.create(name=f"{kind}@here", kind=kind, processes=1, seen_at=now)
    LedgerVerification.objects.create(duration=timedelta(seconds=1), rows_scanned=0)


@pytest.mark.usefixtures("healthy_system")
def test_healthy_system_has_no_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "REDO_LOG_BYTES_MIN", 2**20)
    output, status = run_doctor()
    assert status == 0, output
    assert "!!" not in output
    for component in ("settings", "broker", "database", "clock", "worker", "scheduler", "inbox", "ledger"):
        assert f"ok  {component}" in output


@pytest.mark.usefixtures("healthy_system")
def test_triggers_invisible_to_the_database_user_are_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """The application's own user may not see triggers: deploy/mysql/grants.sql."""
    monkeypatch.setattr("ledger.triggers.visible", lambda _: False)
    monkeypatch.setattr(doctor, "REDO_LOG_BYTES_MIN", 2**20)

    output, status = run_doctor()

    assert status == 0, output
    assert "(ledger.I001)" in output
    assert "up to date" in output


@pytest.mark.usefixtures("healthy_system")
def test_silenced_system_check_is_omitted(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.triggers.visible", lambda _: False)
    settings.SILENCED_SYSTEM_CHECKS = ["ledger.I001"]

    assert "ledger.I001" not in run_doctor()[0]


def test_missing_processes_and_verification_are_reported() -> None:
    output, status = run_doctor()
    assert status == 1
    assert output.count("none is running") == 2
    assert "never verified" in output


@pytest.mark.usefixtures("healthy_system")
def test_stale_worker_backlog_failures_and_drift_are_reported_with_remedies() -> None:
    old = clock.database_now() - timedelta(minutes=5)
    Heartbeat.objects.filter(kind=Heartbeat.Kind.WORKER).update(seen_at=old)
    LedgerVerification.objects.update(drift="balance of 7707083893: 1 expected, 2 found")
    inbox.record_unrecognized(inbox.Delivery(b"{}", "tbank"), b"{}", "why")
    make_webhook()
    Webhook.objects.update(status=Webhook.Status.FAILED)
    make_webhook()
    Webhook.objects.update(received_at=timezone.now() - timedelta(minutes=10))

    output, status = run_doctor()

    assert status == 1
    for component in ("worker", "inbox", "ledger"):
        assert f"!!  {component}" in output
    assert "manage.py replay --failed" in output
    assert "1 unrecognized deliveries open" in output
    assert "docs/runbook.md#unrecognized-deliveries" in output
    assert "2 found" in output


@pytest.mark.usefixtures("healthy_system")
@pytest.mark.skipif(connection.vendor != "mysql", reason="SQLite has no redo log")
def test_small_redo_log_is_reported() -> None:
    assert "!!  database   redo log of" in run_doctor()[0]


@pytest.mark.skipif(connection.vendor != "mysql", reason="SQLite has no cluster")
def test_server_that_reports_no_cluster_is_one_node(monkeypatch: pytest.MonkeyPatch) -> None:
    connection.ensure_connection()  # to the test's server
    monkeypatch.setitem(connection.settings_dict, "HOSTS", ["one", "two", "three"])

    assert cluster.status() == ClusterStatus()


@pytest.mark.parametrize(
    ("display_name", "rows", "expected"),
    [
        (
            "MariaDB",
            [
                ("wsrep_cluster_size", "2"),
                ("Wsrep_local_cert_failures", "3"),
                ("wsrep_local_bf_aborts", "4"),
                ("wsrep_flow_control_paused_ns", "1500000000"),
            ],
            ClusterStatus(2, 3, conflicts=7, paused_seconds=1.5),
        ),
        ("MySQL", [(2, 7)], ClusterStatus(2, 3, conflicts=7)),
        ("MySQL", [(0, 0)], ClusterStatus()),
        ("MySQL", OperationalError(cluster.SELECT_DENIED, "denied"), ClusterStatus()),
    ],
)
def test_status_of_a_cluster_is_read(
    display_name: str, rows: Any, expected: ClusterStatus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The servers' answers; faults/ has real clusters."""
    cursor = MagicMock()
    cursor.__enter__.return_value = cursor
    cursor.execute.side_effect = rows if isinstance(rows, Exception) else None
    cursor.fetchall.return_value = rows
    cursor.fetchone.return_value = rows[0] if isinstance(rows, list) else None
    monkeypatch.setattr(
        cluster,
        "connection",
        SimpleNamespace(
            display_name=display_name, settings_dict={"HOSTS": ["a", "b", "c"]}, cursor=lambda: cursor
        ),
    )

    assert cluster.status() == expected


@pytest.mark.usefixtures("healthy_system")
def test_missing_node_of_a_cluster_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "  cluster  " not in run_doctor()[0]

    monkeypatch.setattr(cluster, "status", lambda: ClusterStatus(2, 3, conflicts=7))
    output, status = run_doctor()

    assert status == 1
    assert "!!  cluster    2 of 3 nodes, 7 conflicts" in output
    assert "docs/runbook.md#a-database-node-is-gone" in output
    [problem] = [each for each in server_problems() if each.cause == "cluster_degraded"]
    assert (problem.text, problem.magnitude) == ("The database cluster has 2 of 3 nodes", 1)


@pytest.mark.usefixtures("healthy_system")
def test_failing_inbox_is_reported() -> None:
    with failing_inbox("The table is full"):
        output, status = run_doctor()
    assert status == 1
    assert "!!  inbox      accepts no webhook: The table is full" in output
    assert "docs/runbook.md#delivery-errors" in output


@pytest.mark.usefixtures("healthy_system")
def test_failing_posting_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def post(*_: object) -> None:
        raise OperationalError(1054, "Unknown column 'document_date'")

    monkeypatch.setattr(applying, "post", post)

    output, status = run_doctor()

    assert status == 1
    assert "!!  ledger     trial posting failed: Unknown column 'document_date'" in output
    assert "docs/runbook.md#posting-failing" in output


def test_clock_skew_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    now = clock.database_now()
    monkeypatch.setattr(timezone, "now", lambda: now + timedelta(minutes=1))
    monkeypatch.setattr(clock, "database_now", lambda: now)
    assert "!!  clock" in run_doctor()[0]


@pytest.mark.usefixtures("healthy_system")
def test_unreachable_broker_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        raise ConnectionRefusedError("connection refused")

    monkeypatch.setattr(doorbell, "queue_length", refuse)
    output, status = run_doctor()
    assert status == 1
    assert "!!  broker     does not respond: connection refused" in output


def test_unreachable_database_is_reported_and_ends_the_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Any:
        raise doctor.InterfaceError(2003, "Can't connect to MySQL server")

    monkeypatch.setattr(doctor, "_database", fail)
    output, status = run_doctor()
    assert status == 1
    assert "!!  database   Can't connect to MySQL server" in output


@pytest.mark.usefixtures("healthy_system")
def test_remedy_of_missing_tls_names_our_setting(settings: Any) -> None:
    settings.DEBUG = False
    settings.SECURE_SSL_REDIRECT = False

    output, status = run_doctor()

    assert status == 1
    assert "(security.W008)\n               → put a TLS proxy in front and set BEHIND_TLS_PROXY=1" in output
