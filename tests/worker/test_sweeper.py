"""The sweeper: it finds work without a message, and does it itself if there is no broker."""

import os
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from celery import beat, current_app
from django.db import OperationalError, connection, transaction
from django.db.models import QuerySet
from django.utils import timezone
from django_celery_results.models import TaskResult

from ingest import doorbell
from ingest.models import Webhook
from ledger.models import Organization
from tests.concurrency import requires_row_locks, run_concurrently
from tests.factories import ROMASHKA, VASILEK, balances, make_organizations, make_webhook, terms
from worker import applying, beat_scheduler, retries, sweeper, tasks
from worker.heartbeats import SchedulerHeartbeat, heartbeat_path
from worker.models import Heartbeat

pytestmark = pytest.mark.django_db(transaction=True)
Sent = Callable[[], list[Any]]
APPLY_TASK = "worker.tasks.apply_received"
TRANSIENT = "database is locked" if connection.vendor == "sqlite" else 2003


def long_ago() -> Any:
    return timezone.now() - timedelta(hours=1)


@pytest.fixture
def no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise ConnectionRefusedError("connection refused")

    monkeypatch.setattr(current_app, "connection_for_write", refuse)


def test_sweep_rings_for_queued_webhooks(sent: Sent) -> None:
    sweeper.sweep()
    assert sent() == []

    make_webhook()
    sweeper.sweep()
    assert [name for name, _, _ in sent()] == [APPLY_TASK]


def test_sweep_isolates_a_few_stalled_webhooks(sent: Sent) -> None:
    stalled = [make_webhook(received_at=long_ago()) for _ in range(sweeper.ISOLATED_AT_ONCE_MAX + 1)]
    make_webhook()

    sweeper.sweep()

    (group,) = [kwargs["webhook_ids"] for name, kwargs, _ in sent() if name == retries.GROUP_TASK]
    assert group == [webhook.pk for webhook in stalled[:-1]]
    assert Webhook.objects.queued().count() == 2


@requires_row_locks
def test_stalled_webhooks_of_locked_organization_stay_queued(sent: Sent) -> None:
    """An organization locked for an hour costs no attempts, and hides no webhook of another one."""
    make_organizations(ROMASHKA)
    for _ in range(sweeper.ISOLATED_AT_ONCE_MAX + 1):
        make_webhook(received_at=long_ago())
    stalled = make_webhook(terms(inn=VASILEK), received_at=long_ago())

    with transaction.atomic():
        Organization.objects.select_for_update().get(inn=ROMASHKA)
        run_concurrently([sweeper.sweep])

    assert [webhook.pk for webhook in Webhook.objects.exclude(next_attempt_at=None)] == [stalled.pk]


@pytest.mark.usefixtures("no_broker")
def test_skipped_attempt_stores_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    make_organizations(ROMASHKA)
    make_webhook(next_attempt_at=long_ago(), attempts=1)
    monkeypatch.setattr(applying, "apply_ids", lambda _: set())

    sweeper.sweep()

    assert Webhook.objects.get().attempts == 1
    assert not TaskResult.objects.exists()


@pytest.mark.usefixtures("no_broker")
def test_sweep_without_broker_applies_queue_and_runs_retries() -> None:
    make_webhook()
    alone = make_webhook(terms(inn=VASILEK), next_attempt_at=long_ago(), attempts=1)

    sweeper.sweep()

    assert balances() == {ROMASHKA: 100_00, VASILEK: 100_00}
    alone.refresh_from_db()
    assert alone.attempts == 2
    result = TaskResult.objects.get()
    assert (retries.webhook_id_from_task_id(result.task_id), result.status) == (alone.pk, "SUCCESS")


@pytest.mark.usefixtures("no_broker")
def test_many_retries_do_not_delay_common_queue(settings: Any) -> None:
    """Retries that a sweep without a broker had no time for are due at the next one, not 30 s later."""
    settings.SWEEP_INTERVAL_SECONDS = 0
    for attempts_made in (0, 0, 1):
        make_webhook(terms(inn=VASILEK), next_attempt_at=long_ago(), attempts=attempts_made)
    make_webhook()

    sweeper.sweep()

    assert balances() == {ROMASHKA: 100_00}
    assert Webhook.objects.due(timezone.now()).count() == 3


@pytest.mark.usefixtures("no_broker")
def test_webhook_that_kills_its_process_does_not_kill_sweeper(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good, deadly = make_webhook(), make_webhook(terms(document_number="DEADLY"))
    real_post = applying.post

    def post(payments: QuerySet[Any], organizations: Any) -> None:
        if payments.filter(document_number="DEADLY"):
            os._exit(1)
        real_post(payments, organizations)

    monkeypatch.setattr(applying, "post", post)
    for _ in range(3):
        sweeper.sweep()
        Webhook.objects.received().exclude(next_attempt_at=None).update(next_attempt_at=long_ago())

    for webhook in (good, deadly):
        webhook.refresh_from_db()
    assert (good.status, deadly.status) == ("applied", "received")
    assert deadly.attempts > 0


@pytest.mark.usefixtures("no_broker")
def test_deadly_webhook_behind_backlog_fails_in_bounded_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: Any
) -> None:
    """No batch of the oldest webhooks has it, and the queue is always longer than a batch."""
    settings.BATCH_SIZE_MAX = 4
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    make_organizations(ROMASHKA, VASILEK)
    for _ in range(60):
        make_webhook()
    deadly = make_webhook(terms(inn=VASILEK, document_number="DEADLY"))
    good = make_webhook(terms(inn=VASILEK))
    real_post = applying.post

    def post(payments: QuerySet[Any], organizations: Any) -> None:
        if payments.filter(document_number="DEADLY"):
            os._exit(1)
        real_post(payments, organizations)

    monkeypatch.setattr(applying, "post", post)
    for _ in range(settings.ATTEMPTS_MAX + 3):
        sweeper.sweep()
        for _ in range(8):
            make_webhook()
        Webhook.objects.received().exclude(next_attempt_at=None).update(next_attempt_at=long_ago())

    deadly.refresh_from_db()
    good.refresh_from_db()
    assert (deadly.status, deadly.last_error) == ("failed", retries.PROCESS_DIED)
    assert good.status == "applied"


@pytest.mark.usefixtures("no_broker")
def test_scheduler_runs_due_tasks_in_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    swept: list[None] = []
    monkeypatch.setattr(sweeper, "sweep", lambda: swept.append(None))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(beat_scheduler.InProcessScheduler, "heartbeat", SchedulerHeartbeat())
    scheduler = beat_scheduler.InProcessScheduler(app=current_app)
    assert isinstance(scheduler, beat.Scheduler)

    scheduler.apply_entry(scheduler.schedule["sweep"], producer=scheduler.producer)

    assert len(swept) == 1
    assert heartbeat_path("scheduler").exists()
    assert Heartbeat.objects.get().kind == Heartbeat.Kind.SCHEDULER


def test_database_outage_during_a_sweep_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OperationalError(TRANSIENT, "no database host takes writes")

    monkeypatch.setattr(sweeper, "sweep", fail)
    monkeypatch.setattr(beat_scheduler.InProcessScheduler, "heartbeat", SchedulerHeartbeat())
    celery_logs: list[str] = []
    monkeypatch.setattr(beat, "error", lambda text, *_, **__: celery_logs.append(text))
    scheduler = beat_scheduler.InProcessScheduler(app=current_app)
    with structlog.testing.capture_logs() as events:
        scheduler.apply_entry(scheduler.schedule["sweep"])

    assert [(each["log_level"], each["event"]) for each in events] == [("warning", "scheduled task failed")]
    assert celery_logs == []
    assert not Heartbeat.objects.exists()


def test_wall_clock_set_back_delays_no_sweep(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    swept: list[None] = []
    monkeypatch.setattr(sweeper, "sweep", lambda: swept.append(None))
    scheduler = beat_scheduler.InProcessScheduler(app=current_app)
    scheduler.tick()
    before, began = current_app.now(), time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr(current_app, "now", lambda: before - timedelta(days=1))
        patch.setattr(time, "monotonic", lambda: began + settings.SWEEP_INTERVAL_SECONDS + 0.1)
        scheduler.tick()

    assert len(swept) == 1


def test_schedule_has_prune_and_no_celery_cleanup() -> None:
    scheduled = [entry.task for entry in beat_scheduler.InProcessScheduler(app=current_app).schedule.values()]
    assert "worker.tasks.prune" in scheduled
    assert "celery.backend_cleanup" not in scheduled


def test_task_runs_until_queue_is_empty(sent: Sent, settings: Any) -> None:
    settings.BATCH_SIZE_MAX = 2
    for _ in range(5):
        make_webhook()

    tasks.apply_received()

    assert balances() == {ROMASHKA: 500_00}


def test_task_out_of_time_rings_for_next(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    rings: list[None] = []
    monkeypatch.setattr(tasks.doorbell, "ring", lambda: rings.append(None))
    monkeypatch.setattr(tasks, "SECONDS_MAX", 0)
    settings.BATCH_SIZE_MAX = 2
    for _ in range(3):
        make_webhook()

    tasks.apply_received()

    assert (balances(), len(rings)) == ({ROMASHKA: 200_00}, 1)


def test_sweeper_closes_connection_before_fork(no_broker: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes on one connection would read each other's results."""
    seen: list[object] = []

    class Subprocess:
        exitcode = 0

        def __init__(self, **_: object) -> None:
            seen.append(connection.connection)

        def start(self) -> None: ...
        def join(self, _: float) -> None: ...

    class Context:
        Process = Subprocess

    make_webhook()
    monkeypatch.setattr(sweeper.multiprocessing, "get_context", lambda _: Context)
    sweeper.sweep()

    assert seen == [None]


def test_queued_retries_do_not_suppress_rings(sent: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorbell, "QUEUED_RINGS_MAX", 2)
    monkeypatch.setattr(retries, "GROUP_MAX", 1)
    for _ in range(3):
        make_webhook(next_attempt_at=long_ago())
    make_webhook()

    sweeper.sweep()

    assert sorted(name for name, _, _ in sent()) == [APPLY_TASK] + [retries.GROUP_TASK] * 3
