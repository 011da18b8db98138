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
from kombu.exceptions import OperationalError as BrokerAway

from core.db import clock
from ingest import doorbell, inbox
from ingest.models import ConflictingDelivery, LedgerVerification, Webhook
from monitoring import alerts, notifications, problems
from monitoring.alerts import CHECKS_MIN, CheckResult, DatabaseOutage
from monitoring.models import Alert, AlertLease
from tests.admin_client import admin_url, staff_client, superuser_client
from tests.alert_receivers import WebhookReceiver, mail_server, silent_server, webhook_receiver
from tests.corruption import failing_inbox
from tests.factories import ROMASHKA, make_webhook
from tests.monitoring.test_doctor import examined
from worker.heartbeats import record_heartbeat
from worker.models import Heartbeat

pytestmark = pytest.mark.django_db(transaction=True)
Settings = Any
NO_WORKER = "No worker is known to run"


@pytest.fixture
def receiver(settings: Settings) -> Iterator[WebhookReceiver]:
    with webhook_receiver() as server:
        settings.ALERT_WEBHOOK_URL = [server.url]
        yield server


@pytest.fixture(autouse=True)
def a_house_in_order() -> None:
    worker_comes()
    record_heartbeat(Heartbeat.Kind.SCHEDULER, "beat-8000@one", 1)
    LedgerVerification.objects.create(duration=timedelta(seconds=3), rows_scanned=1)


def worker_comes() -> None:
    record_heartbeat(Heartbeat.Kind.WORKER, "worker-8000@one", 2)


def worker_goes() -> None:
    Heartbeat.objects.filter(kind=Heartbeat.Kind.WORKER).delete()


def looks(number: int = 1) -> CheckResult:
    """So many looks, each when it is due; how the last one ended."""
    for _ in range(number):
        AlertLease.objects.update(due_at=clock.database_now())
        looked = alerts.check()
    return looked


def test_a_house_in_order_has_nothing_to_tell(receiver: WebhookReceiver) -> None:
    assert looks(CHECKS_MIN) is CheckResult.DONE
    assert receiver.payloads == []
    assert not Alert.objects.exists()


def test_a_cause_that_holds_is_told_once_and_so_is_its_end(receiver: WebhookReceiver) -> None:
    worker_goes()
    looks(CHECKS_MIN - 1)
    assert receiver.payloads == []
    looks()
    assert receiver.states() == [("worker_down", "new")]
    assert receiver.payloads[0]["text"].startswith(NO_WORKER)
    looks(2 * CHECKS_MIN)
    assert len(receiver.payloads) == 1

    Alert.objects.update(started_at=clock.database_now() - timedelta(hours=3))
    worker_comes()
    looks(CHECKS_MIN - 1)
    assert len(receiver.payloads) == 1
    looks()
    assert receiver.states() == [("worker_down", "new"), ("worker_down", "over")]
    assert receiver.payloads[1]["text"] == f"Over after 3 h. It was: {NO_WORKER}"
    assert receiver.payloads[1]["alerts"][0]["seconds"] >= 3 * 3600
    assert not Alert.objects.exists()


def test_what_comes_and_goes_bothers_nobody(receiver: WebhookReceiver) -> None:
    for _ in range(4):
        worker_goes()
        looks(CHECKS_MIN - 1)
        worker_comes()
        looks()
    assert receiver.payloads == []

    worker_goes()
    looks(CHECKS_MIN)
    for _ in range(4):
        worker_comes()
        looks(CHECKS_MIN - 1)
        worker_goes()
        looks()
    assert len(receiver.payloads) == 1


def test_what_goes_on_is_told_again_after_its_time(receiver: WebhookReceiver, settings: Settings) -> None:
    settings.ALERT_REPEAT_HOURS = 2.0
    worker_goes()
    looks(CHECKS_MIN)
    Alert.objects.update(notified_at=clock.database_now() - timedelta(hours=1))
    looks()
    assert len(receiver.payloads) == 1
    Alert.objects.update(notified_at=clock.database_now() - timedelta(hours=2))
    looks(2)
    assert receiver.states() == [("worker_down", "new"), ("worker_down", "still")]
    assert receiver.payloads[1]["text"].startswith("Still, for")


def test_ten_times_as_many_failures_are_told_before_their_time(receiver: WebhookReceiver) -> None:
    for expected in (1, 1, 2):
        make_webhook(status=Webhook.Status.FAILED)
        if expected == 2:
            for _ in range(7):
                make_webhook(status=Webhook.Status.FAILED)
        looks(CHECKS_MIN)
        assert len(receiver.payloads) == expected
    assert receiver.payloads[1]["text"].split(": ", 1)[1].startswith("10 webhooks have failed")


def test_many_causes_at_once_are_one_message_the_worst_first(receiver: WebhookReceiver) -> None:
    Heartbeat.objects.all().delete()
    LedgerVerification.objects.update(ended_at=clock.database_now() - timedelta(days=2))
    old = make_webhook(received_at=clock.database_now() - timedelta(hours=1))
    ConflictingDelivery.objects.create(webhook=old, difference="inn", body=b"{}")
    make_webhook(status=Webhook.Status.FAILED)
    inbox.record_unrecognized(inbox.Delivery(b"{}", "tbank"), b"{}", "why")
    looks(CHECKS_MIN)

    assert len(receiver.payloads) == 1
    levels = [news["level"] for news in receiver.payloads[0]["alerts"]]
    assert levels == sorted(levels)  # bad, warning
    assert {cause for cause, _ in receiver.states()} == {
        *("worker_down", "scheduler_down", "stalled", "conflicts", "failed", "verification_overdue"),
        "unrecognized",
    }


def test_no_alert_says_who_was_paid(receiver: WebhookReceiver) -> None:
    LedgerVerification.objects.create(
        duration=timedelta(seconds=3), rows_scanned=1, drift=f"organization {ROMASHKA}: 1 expected, 2 found"
    )
    make_webhook(status=Webhook.Status.FAILED, last_error=f"organization {ROMASHKA} is odd")
    looks(CHECKS_MIN)

    assert {"drift", "failed"} == {cause for cause, _ in receiver.states()}
    assert ROMASHKA not in str(receiver.payloads)


def test_a_broker_that_is_away_and_a_server_that_cant_be_trusted_are_told(
    receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> int:
        raise BrokerAway("redis://:pass@host: nobody listens")

    monkeypatch.setattr(doorbell, "queue_length", away)
    with connection.cursor() as cursor:
        looser = {"sqlite": "PRAGMA synchronous = OFF", "mysql": "SET SESSION sql_mode = ''"}
        cursor.execute(looser[connection.vendor])
    try:
        looks(CHECKS_MIN)
    finally:
        connection.close()

    assert receiver.states() == [("unsafe_database_settings", "new"), ("broker_unreachable", "new")]
    assert "pass" not in str(receiver.payloads)


def test_that_no_webhook_can_be_stored_is_told_and_trying_stores_none(receiver: WebhookReceiver) -> None:
    """The rows look well then, and the bank is answered 503."""
    with failing_inbox("The table is full"):
        looks(CHECKS_MIN)
    assert receiver.states() == [("refused", "new")]
    assert "answered 503: The table is full" in receiver.payloads[0]["text"]

    looks(CHECKS_MIN)
    assert receiver.states()[1:] == [("refused", "over")]
    assert not Webhook.objects.exists()


def test_of_many_who_look_at_once_one_tells(receiver: WebhookReceiver) -> None:
    worker_goes()
    looks(CHECKS_MIN - 1)
    AlertLease.objects.update(due_at=clock.database_now())
    at_once = threading.Barrier(6)
    ends: list[CheckResult] = []

    def one() -> None:
        with closing(connection):
            at_once.wait()
            ends.append(alerts.check())

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(end.name for end in ends) == ["DONE", *["LEASE_TAKEN"] * 5]
    assert receiver.states() == [("worker_down", "new")]


def test_who_died_at_a_look_keeps_the_others_waiting_for_a_while_only(receiver: WebhookReceiver) -> None:
    looks()
    AlertLease.objects.update(due_at=clock.database_now() + alerts.LEASE)
    assert alerts.check() is CheckResult.LEASE_TAKEN
    assert looks() is CheckResult.DONE


def test_credentials_in_the_receivers_url_are_sent_and_never_logged(
    receiver: WebhookReceiver, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with_credentials = receiver.url.replace("://", "://oper%40tor:s3cret%3Aключ@".replace("ключ", "%D0%BA"))
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
def test_what_nobody_took_is_told_at_the_next_look(
    receiver: WebhookReceiver, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    with webhook_receiver() as elsewhere:
        receiver.status, receiver.location = status, elsewhere.url
        worker_goes()
        assert looks(CHECKS_MIN) is CheckResult.UNDELIVERED
        assert elsewhere.payloads == []
    assert "alert delivery failed" in caplog.text
    assert "s3cret" not in caplog.text
    assert "value" not in caplog.text

    receiver.status = 204
    assert looks(2) is CheckResult.DONE
    assert receiver.states() == [("worker_down", "new")] * 2


def test_a_receiver_that_never_answers_is_given_up(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(notifications, "TIMEOUT_SECONDS", 0.2)
    settings.EMAIL_TIMEOUT = 0.2
    with silent_server() as silent, mail_server() as mail:
        port = silent.getsockname()[1]
        settings.ALERT_WEBHOOK_URL = [f"http://127.0.0.1:{port}/"]
        settings.ALERT_EMAILS = ["ops@bank.example"]
        by_mail(settings, port)
        worker_goes()
        assert looks(CHECKS_MIN) is CheckResult.UNDELIVERED
        assert caplog.text.count("alert delivery failed") == 2

        by_mail(settings, mail.server_address[1])
        assert looks() is CheckResult.DONE


def test_a_receiver_whose_certificate_nobody_vouches_for_is_told_nothing(
    settings: Settings, tmp_path: Path
) -> None:
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    files = ["-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"]
    subprocess.run([*request, *files], check=True, capture_output=True)
    with webhook_receiver(tls=tmp_path) as server:
        settings.ALERT_WEBHOOK_URL = [f"https://localhost:{server.server_port}/"]
        assert not alerts.send_test()
        assert server.payloads == []


def by_mail(settings: Settings, port: int) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"  # Django's runner has another
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", port


def test_by_e_mail(settings: Settings) -> None:
    settings.ALERT_EMAILS = ["ops@bank.example", "boss@bank.example"]
    with mail_server() as server:
        by_mail(settings, server.server_address[1])
        worker_goes()
        make_webhook(status=Webhook.Status.FAILED)
        looks(CHECKS_MIN)

    assert server.recipients == ["<ops@bank.example>", "<boss@bank.example>"]
    (mail,) = server.mails
    assert f"Subject: [Prihod] {NO_WORKER}, +1" in mail
    assert "From: prihod@localhost" in mail
    assert "To do: start one: see the worker's line in the Procfile" in mail
    assert "1 webhook has failed" in mail


def test_without_anybody_to_tell_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(**_: Any) -> threading.Thread:
        raise AssertionError("a thread")

    monkeypatch.setattr(threading, "Thread", started)
    alerts.watch_all()
    with pytest.raises(CommandError, match="Nobody is to be told"):
        call_command("send_alerts")


def test_the_command_looks_and_tries(receiver: WebhookReceiver) -> None:
    out = StringIO()
    call_command("send_alerts", test=True, stdout=out)
    assert receiver.states() == [("trial", "test")]

    call_command("send_alerts", stdout=out)
    call_command("send_alerts", stdout=out)
    assert out.getvalue().splitlines() == [
        "The trial message was taken.",
        CheckResult.DONE.value,
        CheckResult.LEASE_TAKEN.value,
    ]

    receiver.status = 500
    with pytest.raises(SystemExit):
        call_command("send_alerts", test=True, stdout=out)


def test_a_database_that_is_away_is_told_by_the_scheduler_once_and_so_is_its_end(
    receiver: WebhookReceiver,
) -> None:
    database = DatabaseOutage()
    for _ in range(2 * CHECKS_MIN):
        database.failed()
    for _ in range(CHECKS_MIN):
        database.answered()
    assert receiver.states() == [("database_unreachable", "new"), ("database_unreachable", "over")]

    for _ in range(CHECKS_MIN - 1):
        database.failed()
    database.answered()
    assert len(receiver.payloads) == 2


def test_a_look_without_a_database_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> None:
        raise OperationalError(2006, "gone away")

    monkeypatch.setattr(clock, "database_now", gone)
    with pytest.raises(OperationalError):
        alerts.check()


@pytest.mark.usefixtures("receiver")
def test_the_dashboard_says_what_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> int:
        raise BrokerAway

    monkeypatch.setattr(doorbell, "queue_length", away)
    worker_goes()
    looks(CHECKS_MIN)
    shown = superuser_client().get("/admin/").content.decode()

    assert shown.count("alert sent") == 2
    assert f"{NO_WORKER}</a> <small>alert sent" in shown
    assert "The broker does not answer</a> <small>alert sent" in shown


def test_alerts_can_be_seen_in_the_admin_and_not_changed() -> None:
    Alert.objects.create(
        cause="worker_down", level=3, text="t", remedy="d", size=1, started_at=timezone.now()
    )
    admin_client = superuser_client()
    assert "worker_down" in admin_client.get(admin_url(Alert, "changelist")).content.decode()
    assert admin_client.get(admin_url(Alert, "add")).status_code == 403
    assert admin_client.post(admin_url(Alert, "delete", "worker_down"), {"post": "yes"}).status_code == 403


@pytest.mark.parametrize("group", ["Operators", "Auditors"])
def test_whoever_sees_the_dashboard_may_follow_its_links(group: str) -> None:
    # Tests before may have emptied the tables.
    import_module("ingest.migrations.0001_initial").create_groups(apps, None)
    import_module("monitoring.migrations.0001_initial").grant_views(apps, None)
    browser = staff_client()
    User.objects.get(username="olga").groups.add(Group.objects.get(name=group))
    assert "flow-board" in browser.get("/admin/").content.decode()
    for model in (Alert, Heartbeat):
        assert browser.get(admin_url(model, "changelist")).status_code == 200


def test_late_means_the_same_to_dashboard_doctor_and_alerts(
    receiver: WebhookReceiver, settings: Settings
) -> None:
    make_webhook(received_at=clock.database_now() - timedelta(seconds=90))
    for bound, expected in [(60.0, True), (300.0, False)]:
        settings.STALLED_AFTER_SECONDS = bound
        Alert.objects.all().delete()
        looks(CHECKS_MIN)
        told = examined()[0]
        shown = superuser_client(str(bound)).get("/admin/").content.decode()
        assert ("Processing stalled" in shown) is expected
        assert Alert.objects.filter(cause=problems.STALLED).exists() is expected
        assert ("!!  inbox" in told) is expected
    assert receiver.states()[0] == ("stalled", "new")


def test_the_thread_survives_a_failure_to_tell_that_the_database_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Enough(BaseException):
        pass

    def away() -> None:
        raise OperationalError(2006, "gone away")

    def fail(_: object) -> None:
        raise OSError(28, "No space left on device")

    pauses = iter([None, None])

    def pause(_: float) -> None:
        if next(pauses, Enough) is Enough:
            raise Enough

    monkeypatch.setattr(alerts, "check", away)
    monkeypatch.setattr(alerts.DatabaseOutage, "failed", fail)
    monkeypatch.setattr(alerts.time, "sleep", pause)
    with pytest.raises(Enough):
        alerts._watch(with_database=True)
