import base64
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, User
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.utils import timezone
from kombu.exceptions import OperationalError as BrokerError

from core.db import clock
from ingest import doorbell, inbox
from ingest.models import ConflictingDelivery, LedgerVerification, SuspectedDuplicate, Webhook
from monitoring import alerts, notifications, problems
from monitoring.alerts import CHECKS_MIN, CheckResult, DatabaseOutage
from monitoring.models import Alert, AlertLease
from tests.admin_client import admin_url, staff_client, superuser_client
from tests.alert_receivers import WebhookReceiver, mail_server, silent_server, webhook_receiver
from tests.corruption import failing_inbox
from tests.factories import ROMASHKA, make_webhook
from tests.markers import every_database, sqlite_run_only
from tests.monitoring.test_doctor import run_doctor
from worker.heartbeats import record_heartbeat
from worker.models import Heartbeat

pytestmark = [pytest.mark.django_db(transaction=True), sqlite_run_only]
Settings = Any
NO_WORKER = "No worker is running"
FIRING = ("worker_down", "firing")


@pytest.fixture
def receiver(settings: Settings) -> Iterator[WebhookReceiver]:
    with webhook_receiver() as server:
        settings.ALERT_WEBHOOK_URL = [server.url]
        yield server


@pytest.fixture(autouse=True)
def healthy_system() -> None:
    start_worker()
    record_heartbeat(Heartbeat.Kind.SCHEDULER, "scheduler-8000@one", 1)
    LedgerVerification.objects.create(duration=timedelta(seconds=3), rows_scanned=1)


def start_worker() -> None:
    record_heartbeat(Heartbeat.Kind.WORKER, "worker-8000@one", 2)


def stop_worker() -> None:
    Heartbeat.objects.filter(kind=Heartbeat.Kind.WORKER).delete()


def check(times: int = 1) -> CheckResult:
    """Run due checks; return the last result."""
    for _ in range(times):
        AlertLease.objects.update(due_at=clock.database_now())
        result = alerts.check()
    return result


def test_healthy_system_sends_no_alert(receiver: WebhookReceiver) -> None:
    assert check(CHECKS_MIN) is CheckResult.DONE
    assert receiver.messages == []
    assert not Alert.objects.exists()


@every_database
def test_persistent_problem_is_sent_once_and_so_is_its_resolution(receiver: WebhookReceiver) -> None:
    stop_worker()
    check(CHECKS_MIN - 1)
    assert receiver.messages == []
    check()
    assert receiver.states() == [FIRING]
    assert receiver.messages[0]["text"].startswith(NO_WORKER)
    check(2 * CHECKS_MIN)
    assert len(receiver.messages) == 1

    Alert.objects.update(started_at=clock.database_now() - timedelta(hours=3))
    start_worker()
    check(CHECKS_MIN - 1)
    assert len(receiver.messages) == 1
    check()
    assert receiver.states() == [FIRING, ("worker_down", "resolved")]
    assert receiver.messages[1]["text"] == f"Resolved after 3 h: {NO_WORKER}"
    assert receiver.messages[1]["alerts"][0]["duration_seconds"] >= 3 * 3600
    assert not Alert.objects.exists()


def test_flapping_problem_sends_no_alert(receiver: WebhookReceiver) -> None:
    for _ in range(4):
        stop_worker()
        check(CHECKS_MIN - 1)
        start_worker()
        check()
    assert receiver.messages == []

    stop_worker()
    check(CHECKS_MIN)
    for _ in range(4):
        start_worker()
        check(CHECKS_MIN - 1)
        stop_worker()
        check()
    assert len(receiver.messages) == 1


def test_persistent_problem_is_repeated_after_the_interval(
    receiver: WebhookReceiver, settings: Settings
) -> None:
    settings.ALERT_REPEAT_HOURS = 2.0
    stop_worker()
    check(CHECKS_MIN)
    Alert.objects.update(notified_at=clock.database_now() - timedelta(hours=1))
    check()
    assert len(receiver.messages) == 1
    Alert.objects.update(notified_at=clock.database_now() - timedelta(hours=2))
    check(2)
    assert receiver.states() == [FIRING, ("worker_down", "repeated")]
    assert receiver.messages[1]["text"].startswith("For ")


def test_tenfold_failures_are_repeated_before_the_interval(receiver: WebhookReceiver) -> None:
    for expected in (1, 1, 2):
        make_webhook(status=Webhook.Status.FAILED)
        if expected == 2:
            for _ in range(7):
                make_webhook(status=Webhook.Status.FAILED)
        check(CHECKS_MIN)
        assert len(receiver.messages) == expected
    assert receiver.messages[1]["text"].split(": ", 1)[1].startswith("10 webhooks have failed")


@every_database
def test_simultaneous_problems_are_one_message_most_severe_first(receiver: WebhookReceiver) -> None:
    Heartbeat.objects.all().delete()
    LedgerVerification.objects.update(ended_at=clock.database_now() - timedelta(days=2))
    old = make_webhook(received_at=clock.database_now() - timedelta(hours=1))
    ConflictingDelivery.objects.create(webhook=old, difference="inn", body=b"{}")
    failed = make_webhook(status=Webhook.Status.FAILED)
    SuspectedDuplicate.objects.create(webhook=old, first=failed)
    inbox.record_unrecognized(inbox.Delivery(b"{}", "tbank"), b"{}", "why")
    check(CHECKS_MIN)

    assert len(receiver.messages) == 1
    severities = [alert["severity"] for alert in receiver.messages[0]["alerts"]]
    assert severities == sorted(severities)  # critical, warning
    assert {cause for cause, _ in receiver.states()} == {
        *("worker_down", "scheduler_down", "stalled", "conflicts", "failed", "verification_overdue"),
        *("unrecognized", "suspected_duplicates"),
    }


def test_alert_contains_no_payee(receiver: WebhookReceiver) -> None:
    LedgerVerification.objects.create(
        duration=timedelta(seconds=3),
        rows_scanned=1,
        drift=f"organization {ROMASHKA}: 1 expected, 2 found",
    )
    make_webhook(status=Webhook.Status.FAILED, last_error=f"organization {ROMASHKA} is odd")
    check(CHECKS_MIN)

    assert {"drift", "failed"} == {cause for cause, _ in receiver.states()}
    assert ROMASHKA not in str(receiver.messages)


@every_database
def test_unreachable_broker_and_unsafe_database_settings_are_sent(
    receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> int:
        raise BrokerError("redis://:pass@host: connection refused")

    monkeypatch.setattr(doorbell, "queue_length", fail)
    with connection.cursor() as cursor:
        unsafe = {"sqlite": "PRAGMA synchronous = OFF", "mysql": "SET SESSION sql_mode = ''"}
        cursor.execute(unsafe[connection.vendor])
    try:
        check(CHECKS_MIN)
    finally:
        connection.close()

    assert receiver.states() == [("unsafe_database_settings", "firing"), ("broker_unreachable", "firing")]
    assert "pass" not in str(receiver.messages)


@every_database
def test_failing_inbox_is_sent_and_the_probe_stores_nothing(receiver: WebhookReceiver) -> None:
    """The stored rows do not show it, and deliveries are answered 503."""
    with failing_inbox("The table is full"):
        check(CHECKS_MIN)
    assert receiver.states() == [("inbox_write_failed", "firing")]
    assert "answered 503: The table is full" in receiver.messages[0]["text"]

    check(CHECKS_MIN)
    assert receiver.states()[1:] == [("inbox_write_failed", "resolved")]
    assert not Webhook.objects.exists()


@every_database
def test_one_of_several_concurrent_checks_sends(receiver: WebhookReceiver) -> None:
    stop_worker()
    check(CHECKS_MIN - 1)
    AlertLease.objects.update(due_at=clock.database_now())
    barrier = threading.Barrier(6)
    results: list[CheckResult] = []

    def run_check() -> None:
        with closing(connection):
            barrier.wait()
            results.append(alerts.check())

    threads = [threading.Thread(target=run_check) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(result.name for result in results) == ["DONE", *["LEASE_TAKEN"] * 5]
    assert receiver.states() == [FIRING]


@every_database
@pytest.mark.usefixtures("receiver")
def test_lease_of_a_dead_process_expires() -> None:
    check()
    AlertLease.objects.update(due_at=clock.database_now() + alerts.LEASE)
    assert alerts.check() is CheckResult.LEASE_TAKEN
    assert check() is CheckResult.DONE


def test_credentials_of_the_receivers_url_are_sent_and_never_logged(
    receiver: WebhookReceiver, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with_credentials = receiver.url.replace("://", "://oper%40tor:s3cret%3A%D0%BA@")
    settings.ALERT_WEBHOOK_URL = [with_credentials]
    assert alerts.send_test()
    expected = base64.b64encode("oper@tor:s3cret:к".encode()).decode()
    assert receiver.authorization == f"Basic {expected}"

    settings.ALERT_WEBHOOK_URL = ["http://operator:s3cret@127.0.0.1:1/x", "http://operator:s3cret@[::1]:1/x"]
    assert not alerts.send_test()
    assert "ConnectionRefusedError: Connection refused" in caplog.text
    assert "s3cret" not in caplog.text
    assert "operator" not in caplog.text


@pytest.mark.parametrize("status", [500, 404, 302])
def test_undelivered_alert_is_sent_at_the_next_check(
    receiver: WebhookReceiver, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    with webhook_receiver() as other:
        receiver.status, receiver.location = status, other.url
        stop_worker()
        assert check(CHECKS_MIN) is CheckResult.UNDELIVERED
        assert other.messages == []
    assert "alert delivery failed" in caplog.text
    assert "s3cret" not in caplog.text
    assert "value" not in caplog.text

    receiver.status = 204
    assert check(2) is CheckResult.DONE
    assert receiver.states() == [FIRING] * 2


def test_silent_receiver_times_out(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(notifications, "TIMEOUT_SECONDS", 0.2)
    settings.EMAIL_TIMEOUT = 0.2
    with silent_server() as silent, mail_server() as mail:
        port = silent.getsockname()[1]
        settings.ALERT_WEBHOOK_URL = [f"http://127.0.0.1:{port}/"]
        settings.ALERT_EMAILS = ["ops@bank.example"]
        use_mail_server(settings, port)
        stop_worker()
        assert check(CHECKS_MIN) is CheckResult.UNDELIVERED
        assert caplog.text.count("alert delivery failed") == 2

        use_mail_server(settings, mail.server_address[1])
        assert check() is CheckResult.DONE


def test_receiver_with_an_untrusted_certificate_gets_nothing(settings: Settings, tmp_path: Path) -> None:
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    files = ["-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"]
    subprocess.run([*request, *files], check=True, capture_output=True)
    with webhook_receiver(tls=tmp_path) as server:
        settings.ALERT_WEBHOOK_URL = [f"https://localhost:{server.server_port}/"]
        assert not alerts.send_test()
        assert server.messages == []


def use_mail_server(settings: Settings, port: int) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"  # Django's runner replaces it
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", port


def test_alert_is_sent_by_e_mail(settings: Settings) -> None:
    settings.ALERT_EMAILS = ["ops@bank.example", "boss@bank.example"]
    with mail_server() as server:
        use_mail_server(settings, server.server_address[1])
        stop_worker()
        make_webhook(status=Webhook.Status.FAILED)
        check(CHECKS_MIN)

    assert server.recipients == ["<ops@bank.example>", "<boss@bank.example>"]
    (mail,) = server.mails
    assert f"Subject: [Prihod] {NO_WORKER}, +1" in mail
    assert "From: prihod@localhost" in mail
    assert "Remedy: start a worker: see its line in the Procfile" in mail
    assert "1 webhook has failed" in mail


def test_without_recipients_no_check_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(**_: Any) -> threading.Thread:
        raise AssertionError("a thread was started")

    monkeypatch.setattr(threading, "Thread", start)
    alerts.start_in_scheduler()
    with pytest.raises(CommandError, match="No recipients"):
        call_command("send_alerts")


def test_command_checks_and_sends_a_test_message(receiver: WebhookReceiver) -> None:
    out = StringIO()
    call_command("send_alerts", test=True, stdout=out)
    assert receiver.states() == [("test", "test")]

    call_command("send_alerts", stdout=out)
    call_command("send_alerts", stdout=out)
    assert out.getvalue().splitlines() == [
        "A recipient accepted the test message.",
        CheckResult.DONE.value,
        CheckResult.LEASE_TAKEN.value,
    ]

    receiver.status = 500
    with pytest.raises(SystemExit):
        call_command("send_alerts", test=True, stdout=out)


@pytest.mark.usefixtures("receiver")
def test_command_without_the_database_ends_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OperationalError(2013, "gone away")

    monkeypatch.setattr(alerts, "check", fail)
    with pytest.raises(CommandError, match=r"The database failed: .*gone away"):
        call_command("send_alerts")


def test_database_outage_is_sent_once_and_so_is_its_resolution(receiver: WebhookReceiver) -> None:
    outage = DatabaseOutage()
    for _ in range(2 * CHECKS_MIN):
        outage.record_failure()
    for _ in range(CHECKS_MIN):
        outage.record_success()
    assert receiver.states() == [("database_unreachable", "firing"), ("database_unreachable", "resolved")]

    for _ in range(CHECKS_MIN - 1):
        outage.record_failure()
    outage.record_success()
    assert len(receiver.messages) == 2


def test_check_without_a_database_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OperationalError(2006, "gone away")

    monkeypatch.setattr(clock, "database_now", fail)
    with pytest.raises(OperationalError):
        alerts.check()


@pytest.mark.usefixtures("receiver")
def test_dashboard_shows_that_an_alert_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> int:
        raise BrokerError

    monkeypatch.setattr(doorbell, "queue_length", fail)
    stop_worker()
    check(CHECKS_MIN)
    page = superuser_client().get("/admin/").content.decode()

    assert page.count("alert sent") == 2
    assert f"{NO_WORKER}</a> <small>alert sent" in page
    assert "The broker does not respond</a> <small>alert sent" in page


def test_alerts_are_read_only_in_the_admin() -> None:
    Alert.objects.create(
        cause="worker_down", severity=3, text="t", remedy="r", magnitude=1, started_at=timezone.now()
    )
    admin_client = superuser_client()
    assert "worker_down" in admin_client.get(admin_url(Alert, "changelist")).content.decode()
    assert admin_client.get(admin_url(Alert, "add")).status_code == 403
    delete = admin_url(Alert, "delete", "worker_down")
    assert admin_client.post(delete, {"post": "yes"}).status_code == 403


@pytest.mark.parametrize("group", ["Operators", "Auditors"])
def test_groups_of_the_dashboard_may_follow_its_links(group: str) -> None:
    # Earlier tests may have emptied the tables.
    import_module("ingest.migrations.0001_initial").create_groups(apps, None)
    import_module("monitoring.migrations.0001_initial").grant_views(apps, None)
    client = staff_client()
    User.objects.get(username="olga").groups.add(Group.objects.get(name=group))
    assert "flow-board" in client.get("/admin/").content.decode()
    for model in (Alert, Heartbeat):
        assert client.get(admin_url(model, "changelist")).status_code == 200


@every_database
def test_stalled_means_the_same_to_dashboard_doctor_and_alerts(
    receiver: WebhookReceiver, settings: Settings
) -> None:
    make_webhook(received_at=clock.database_now() - timedelta(seconds=90))
    for limit, expected in [(60.0, True), (300.0, False)]:
        settings.STALLED_AFTER_SECONDS = limit
        Alert.objects.all().delete()
        check(CHECKS_MIN)
        output = run_doctor()[0]
        page = superuser_client(str(limit)).get("/admin/").content.decode()
        assert ("Processing stalled" in page) is expected
        assert Alert.objects.filter(cause=problems.STALLED).exists() is expected
        assert ("!!  inbox" in output) is expected
    assert receiver.states()[0] == ("stalled", "firing")


def test_thread_survives_a_failing_outage_notification(monkeypatch: pytest.MonkeyPatch) -> None:
    class StopThread(BaseException):
        pass

    def lose_database() -> None:
        raise OperationalError(2006, "gone away")

    def fail(_: object) -> None:
        raise OSError(28, "No space left on device")

    pauses = iter([None, None])

    def sleep(_: float) -> None:
        if next(pauses, StopThread) is StopThread:
            raise StopThread

    monkeypatch.setattr(alerts, "check", lose_database)
    monkeypatch.setattr(alerts.DatabaseOutage, "record_failure", fail)
    monkeypatch.setattr(alerts.time, "sleep", sleep)
    with pytest.raises(StopThread):
        alerts._run(with_database=True)
