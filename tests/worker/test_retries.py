"""Retries of webhooks whose batch failed: groups, single attempts, backoff and the final failure."""

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from billiard.exceptions import WorkerLostError
from celery import current_app
from celery.exceptions import Ignore
from celery.signals import task_failure, worker_ready
from django.db import DataError, OperationalError, connection, transaction
from django.db.models import QuerySet
from django.utils import timezone
from pytest_django import Settings

from core.db import transactions
from ingest import doorbell
from ingest.models import Webhook
from tests.concurrency import requires_row_locks, run_concurrently
from tests.factories import ROMASHKA, balances, make_organizations, make_webhook, post_payments, terms
from worker import applying, claiming, retries, sweeper, tasks, trial_posting
from worker.batch_markers import batch_marker, dead_batches, marker_path

pytestmark = pytest.mark.django_db(transaction=True)
Sent = Callable[[], list[Any]]
POISON = "POISON"


@pytest.fixture(autouse=True)
def rings(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    rung: list[None] = []
    monkeypatch.setattr(doorbell, "ring", lambda: rung.append(None))
    return rung


@pytest.fixture
def separate_temp_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Make posting fail on document number POISON until the returned list is empty."""
    poisonous, real_post = [True], applying.post

    def post(payments: QuerySet[Any], organizations: Any) -> None:
        if poisonous and payments.filter(document_number=POISON):
            raise ValueError("cannot post this")
        real_post(payments, organizations)

    monkeypatch.setattr(applying, "post", post)
    return poisonous


def long_ago() -> Any:
    return timezone.now() - timedelta(hours=1)


def run_due(sent: Sent) -> int:
    """Make every retry due, and run the tasks that the sweeper enqueues; return the number of webhooks."""
    Webhook.objects.received().exclude(next_attempt_at=None).update(next_attempt_at=long_ago())
    sweeper.sweep()
    webhooks = 0
    for name, kwargs, _ in sent():
        with suppress(applying.BatchFailed, OperationalError, Ignore):
            if name == retries.SINGLE_TASK:
                webhooks += 1
                tasks.retry_one(**kwargs)
            elif name == retries.GROUP_TASK:
                webhooks += len(kwargs["webhook_ids"])
                tasks.retry_group(**kwargs)
    return webhooks


def test_failing_batch_is_retried_in_groups_then_singly(
    poison: list[bool], sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "GROUP_MAX", 3)
    good = [make_webhook() for _ in range(8)]
    bad = make_webhook(terms(document_number=POISON))

    tasks.apply_received()

    assert not Webhook.objects.queued().exists()
    messages = sent()
    assert [name for name, _, _ in messages] == [retries.GROUP_TASK] * 3
    assert sorted(key for _, kwargs, _ in messages for key in kwargs["webhook_ids"]) == [
        webhook.pk for webhook in [*good, bad]
    ]
    for _, kwargs, _ in messages:
        tasks.retry_group(**kwargs)
    assert balances() == {ROMASHKA: 600_00}
    assert run_due(sent) == 3  # one of them is the poison
    assert balances() == {ROMASHKA: 800_00}
    bad.refresh_from_db()
    assert (bad.status, bad.attempts, bad.last_error) == ("received", 2, "ValueError('cannot post this')")


def test_batch_that_fails_in_the_sweeper_is_retried(
    poison: list[bool], sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = make_webhook(), make_webhook(terms(document_number=POISON))
    with monkeypatch.context() as patch:
        patch.setattr(trial_posting, "is_deployment_broken", lambda: True)
        sweeper._apply_queue()
    assert Webhook.objects.queued().count() == 2

    sweeper._apply_queue()

    assert not Webhook.objects.queued().exists()
    assert [run_due(sent), run_due(sent)] == [2, 2]  # together, then each on its own
    good.refresh_from_db(), bad.refresh_from_db()
    assert (good.status, bad.status, balances()) == ("applied", "received", {ROMASHKA: 100_00})


def test_database_that_fails_in_the_sweeper_costs_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    webhook = make_webhook()

    def fail(_: int) -> int:
        raise OperationalError(2013, "gone away")

    with monkeypatch.context() as patch, structlog.testing.capture_logs() as events:
        patch.setattr(applying, "apply_batch", fail)
        sweeper._apply_queue()

    assert [each["event"] for each in events] == ["queue not applied; the next sweep retries"]
    assert [each.pk for each in Webhook.objects.queued()] == [webhook.pk]


def test_exception_of_attempt_reaches_celery(poison: list[bool]) -> None:
    bad = make_webhook(terms(document_number=POISON), next_attempt_at=long_ago())

    with pytest.raises(applying.BatchFailed) as raised:
        tasks.retry_one(bad.pk, 1)

    assert "cannot post this" in repr(raised.value.__cause__)


def test_last_attempt_is_never_grouped(poison: list[bool], sent: Sent, settings: Settings) -> None:
    settings.ATTEMPTS_MAX = 1
    good = make_webhook(next_attempt_at=long_ago())
    make_webhook(terms(document_number=POISON), next_attempt_at=long_ago())

    assert run_due(sent) == 2

    good.refresh_from_db()
    assert good.status == "applied"


def test_skipped_group_attempt_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    webhooks = [make_webhook(next_attempt_at=long_ago()) for _ in range(2)]
    make_organizations(ROMASHKA)
    monkeypatch.setattr(applying, "LOCK_RETRY_SECONDS", 0)
    monkeypatch.setattr(claiming, "try_lock", lambda _: {})

    tasks.retry_group([webhook.pk for webhook in webhooks])

    assert list(Webhook.objects.values_list("attempts", "status")) == [(0, "received")] * 2


def test_retries_back_off_exponentially_and_end(poison: list[bool], sent: Sent, settings: Settings) -> None:
    settings.ATTEMPTS_MAX, settings.RETRY_BACKOFF_SECONDS = 4, 10
    bad = make_webhook(terms(document_number=POISON), next_attempt_at=long_ago())

    delays = []
    for _ in range(3):
        now = timezone.now()
        assert run_due(sent) == 1
        bad.refresh_from_db()
        assert bad.next_attempt_at
        delays.append(round((bad.next_attempt_at - now).total_seconds() / 10))
    assert delays == [1, 2, 4]
    assert run_due(sent) == 1

    bad.refresh_from_db()
    assert (bad.status, bad.attempts, bad.next_attempt_at) == ("failed", 4, None)
    assert run_due(sent) == 0


def test_recovered_webhook_is_applied_by_next_attempt(poison: list[bool], sent: Sent) -> None:
    bad = make_webhook(terms(document_number=POISON), next_attempt_at=long_ago())
    run_due(sent)
    poison.clear()

    run_due(sent)

    bad.refresh_from_db()
    assert (bad.status, bad.last_error) == ("applied", "")
    assert balances() == {ROMASHKA: 100_00}


def test_attempt_begins_once() -> None:
    webhook = make_webhook(next_attempt_at=long_ago())

    begun = run_concurrently([lambda: retries.begin_attempt(webhook.pk, 1)] * 4)
    assert sorted(begun, key=bool) == [None, None, None, webhook.operation_id]
    assert not retries.begin_attempt(webhook.pk, 1)
    assert retries.begin_attempt(webhook.pk, 2)


def test_late_message_is_ignored(sent: Sent) -> None:
    webhook = make_webhook(next_attempt_at=long_ago())
    retries.enqueue_due()
    ((_, kwargs, _),) = sent()
    assert tasks.retry_one(**kwargs) == "applied"

    with pytest.raises(Ignore):
        tasks.retry_one(**kwargs)
    assert balances() == {ROMASHKA: 100_00}
    webhook.refresh_from_db()
    assert webhook.attempts == 1


def test_message_is_resent_only_after_timeout(sent: Sent) -> None:
    make_webhook(next_attempt_at=long_ago())
    for _ in range(2):
        assert retries.enqueue_due() == []
    assert len(sent()) == 1

    Webhook.objects.update(next_attempt_at=long_ago())  # after RESEND_AFTER_SECONDS
    retries.enqueue_due()
    assert [kwargs["attempt"] for _, kwargs, _ in sent()] == [1]


def test_begun_attempt_is_not_released(sent: Sent) -> None:
    webhook = make_webhook(next_attempt_at=long_ago())
    retries.enqueue_due()
    ((name, kwargs, _),) = sent()
    assert retries.begin_attempt(webhook.pk, 1)

    retries.release([current_app.signature(name, kwargs=kwargs)])

    assert not Webhook.objects.due(timezone.now()).exists()


def test_queue_length_is_bounded_without_workers(sent: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sweep finds the same webhooks due, because no worker begins their attempts."""
    monkeypatch.setattr(retries, "QUEUE_LENGTH_MAX", 2)
    monkeypatch.setattr(retries, "GROUP_MAX", 1)
    for _ in range(2):
        make_webhook(next_attempt_at=long_ago())
    for _ in range(3):
        Webhook.objects.update(next_attempt_at=long_ago())  # after RESEND_AFTER_SECONDS
        assert retries.enqueue_due() == []

    assert len(sent()) == 2
    assert Webhook.objects.due(timezone.now()).count() == 2
    retries.enqueue_due()
    assert len(sent()) == 2


def test_database_error_is_not_treated_as_broker_error(sent: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    make_webhook(next_attempt_at=long_ago())
    real_update, errors = retries._update_unlocked, [OperationalError(2006, "gone away")]

    def update(*arguments: Any, **values: Any) -> list[Webhook]:
        if errors:
            raise errors.pop()
        return real_update(*arguments, **values)

    monkeypatch.setattr(retries, "_update_unlocked", update)
    with pytest.raises(OperationalError):
        retries.enqueue_due()


def test_transient_error_does_not_count_as_attempt(sent: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    webhook = make_webhook(next_attempt_at=long_ago())

    def post(*_: object) -> None:
        raise OperationalError(1213, "deadlock")

    with monkeypatch.context() as patch:
        patch.setattr(transactions, "BACKOFF_SECONDS", 0)
        patch.setattr(transactions, "is_transient", lambda _: True)
        patch.setattr(applying, "post", post)
        run_due(sent)

    webhook.refresh_from_db()
    assert (webhook.status, webhook.attempts, webhook.last_error) == ("received", 0, "")
    run_due(sent)
    webhook.refresh_from_db()
    assert webhook.status == "applied"


def test_webhook_that_killed_every_process_is_failed_by_sweeper(sent: Sent, settings: Settings) -> None:
    webhook = make_webhook(next_attempt_at=long_ago())
    for attempt in range(1, settings.ATTEMPTS_MAX + 1):
        assert retries.begin_attempt(webhook.pk, attempt)  # the process dies

    Webhook.objects.update(next_attempt_at=long_ago())
    with structlog.testing.capture_logs() as events:
        sweeper.sweep()

    assert [event["operation_id"] for event in events if event["event"] == "webhook failed"] == [
        str(webhook.operation_id)
    ]
    webhook.refresh_from_db()
    assert (webhook.status, webhook.last_error) == ("failed", retries.PROCESS_DIED)
    assert sent() == []


@requires_row_locks
def test_running_last_attempt_is_not_failed(settings: Settings) -> None:
    webhook = make_webhook(next_attempt_at=long_ago(), attempts=settings.ATTEMPTS_MAX)

    with transaction.atomic():
        Webhook.objects.select_for_update().get(pk=webhook.pk)
        run_concurrently([retries.fail_exhausted])

    webhook.refresh_from_db()
    assert webhook.status == "received"


def test_late_failure_of_earlier_attempt_is_ignored(
    settings: Settings,
) -> None:
    settings.ATTEMPTS_MAX = 2
    webhook = make_webhook(next_attempt_at=long_ago())
    for attempt in (1, 2):  # the first lasts until the second has begun
        assert retries.begin_attempt(webhook.pk, attempt)

    retries.record_failure(webhook.pk, 1, "TimeoutError()")

    webhook.refresh_from_db()
    assert (webhook.status, webhook.last_error) == ("received", "")
    assert applying.apply_ids([webhook.pk]) == {webhook.pk}


def die_with(*webhooks: Webhook) -> None:
    """Kill a process that is applying `webhooks`, which leaves its marker behind."""

    def die() -> None:
        with batch_marker([webhook.pk for webhook in webhooks]):
            os._exit(1)

    process = multiprocessing.get_context("fork").Process(target=die)
    process.start()
    process.join()


@pytest.mark.usefixtures("separate_temp_folder")
def test_batch_of_dead_process_moves_to_retries(sent: Sent) -> None:
    """The batch of a live process stays queued."""
    webhooks = [make_webhook() for _ in range(5)]
    die_with(*webhooks[2:4])

    with batch_marker([webhooks[4].pk]):
        for error in (ValueError("no process was lost"), WorkerLostError("signal 9")):
            assert sent() == []
            task_failure.send(sender=tasks.apply_received, task_id="x", exception=error)

    assert [kwargs["webhook_ids"] for _, kwargs, _ in sent()] == [[webhook.pk for webhook in webhooks[2:4]]]
    assert list(Webhook.objects.queued()) == [*webhooks[:2], webhooks[4]]
    assert dead_batches() == {}


@pytest.mark.usefixtures("separate_temp_folder")
def test_starting_worker_recovers_batch_of_dead_process(sent: Sent) -> None:
    webhook = make_webhook()
    die_with(webhook)

    worker_ready.send(sender=None)

    assert [kwargs["webhook_id"] for _, kwargs, _ in sent()] == [webhook.pk]


@requires_row_locks
@pytest.mark.usefixtures("separate_temp_folder")
def test_marker_stays_while_webhooks_of_dead_process_are_locked(sent: Sent) -> None:
    """The server may release the locks later than the worker notices the death."""
    webhook = make_webhook()
    die_with(webhook)
    with transaction.atomic():
        Webhook.objects.select_for_update().get(pk=webhook.pk)
        run_concurrently([retries.move_dead_batches_to_retries])
    assert Webhook.objects.queued().exists()

    sweeper.sweep()

    assert not Webhook.objects.queued().exists()
    assert dead_batches() == {}


@pytest.mark.usefixtures("separate_temp_folder")
@pytest.mark.parametrize("content", ["", "12 x", "\0"])
def test_damaged_marker_is_ignored(content: str) -> None:
    """The process may have died during the write, and other users may write into the folder."""
    make_webhook()
    for pid in (2**22 + 1, "", "x"):  # the first is above the highest process id
        marker_path(pid).write_text(content)

    retries.move_dead_batches_to_retries()

    assert Webhook.objects.queued().count() == 1


@pytest.mark.usefixtures("separate_temp_folder")
def test_marker_follows_no_symlink(tmp_path: Path) -> None:
    """Other users may write into the folder."""
    victim = tmp_path / "victim"
    victim.write_text("content")
    marker_path(os.getpid()).symlink_to(victim)

    with batch_marker([1]):
        pass

    assert victim.read_text() == "content"


@requires_row_locks
@pytest.mark.usefixtures("separate_temp_folder")
def test_dead_batch_is_recovered_after_connection_loss(sent: Sent) -> None:
    """Celery does not renew the connection of the main process, which runs no tasks."""
    webhook = make_webhook()
    die_with(webhook)
    with suppress(OperationalError), connection.cursor() as cursor:
        cursor.execute("KILL CONNECTION_ID()")

    task_failure.send(sender=tasks.apply_received, task_id="x", exception=WorkerLostError("signal 9"))

    assert [kwargs["webhook_id"] for _, kwargs, _ in sent()] == [webhook.pk]


def test_attempt_with_conflict_returns_failed(sent: Sent) -> None:
    webhook = make_webhook(next_attempt_at=long_ago())
    post_payments(terms(5_00, operation_id=webhook.operation_id))
    retries.enqueue_due()

    ((_, kwargs, _),) = sent()
    assert tasks.retry_one(**kwargs) == "failed"


@pytest.mark.parametrize("code", [1021, 1030, 1114, 1205, 1213, 1290, 1317, 2005, 2006, 3100, 3101, 4031])
def test_server_errors_are_transient_and_webhook_errors_are_not(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "vendor", "mysql")
    assert transactions.is_transient(OperationalError(code, "…"))
    assert not transactions.is_transient(OperationalError(1644, "a trigger refused"))
    assert not transactions.is_transient(DataError(code, "…"))


def test_attempt_on_locked_organization_does_not_count(sent: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    webhook = make_webhook(next_attempt_at=long_ago())
    make_organizations(ROMASHKA)
    with monkeypatch.context() as patch:
        patch.setattr(claiming, "try_lock", lambda _: {})
        run_due(sent)

    webhook.refresh_from_db()
    assert (webhook.status, webhook.attempts) == ("received", 0)


def test_undone_attempt_is_due_soon_although_next_was_sent(
    sent: Sent,
) -> None:
    webhook = make_webhook(next_attempt_at=long_ago())
    assert retries.begin_attempt(webhook.pk, 1)
    Webhook.objects.update(next_attempt_at=long_ago())  # it takes longer than the backoff
    retries.enqueue_due()
    ((_, too_early, _),) = sent()

    retries.undo_attempt([webhook.pk], 1)
    with pytest.raises(Ignore):
        tasks.retry_one(**too_early)

    webhook.refresh_from_db()
    assert webhook.next_attempt_at
    assert webhook.next_attempt_at < timezone.now() + timedelta(seconds=retries.RESEND_AFTER_SECONDS / 2)


def test_undo_is_retried_while_database_recovers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    webhook = make_webhook(next_attempt_at=long_ago())
    assert retries.begin_attempt(webhook.pk, 1)
    real_update, errors = retries._update_unlocked, [OperationalError(2006, "gone away")]

    def update(*arguments: Any, **values: Any) -> list[Webhook]:
        if errors:
            raise errors.pop()
        return real_update(*arguments, **values)

    monkeypatch.setattr(transactions, "is_transient", lambda _: True)
    monkeypatch.setattr(transactions, "BACKOFF_SECONDS", 0)
    monkeypatch.setattr(retries, "_update_unlocked", update)
    retries.undo_attempt([webhook.pk], 1)

    webhook.refresh_from_db()
    assert webhook.attempts == 0


@requires_row_locks
def test_backoff_uses_database_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The clock of the worker is a day ahead."""
    webhook = make_webhook(next_attempt_at=long_ago())
    tomorrow = timezone.now() + timedelta(days=1)
    with monkeypatch.context() as patch:
        patch.setattr(timezone, "now", lambda: tomorrow)
        retries.begin_attempt(webhook.pk, 1)

    webhook.refresh_from_db()
    assert webhook.next_attempt_at
    assert abs(webhook.next_attempt_at - timezone.now()) < timedelta(hours=1)


@pytest.mark.parametrize("task_id", ["", "webhook", "webhook-", "webhook-x-1", "celery-17-attempt", "17"])
def test_other_task_ids_have_no_webhook(task_id: str) -> None:
    assert retries.webhook_id_from_task_id(task_id) is None


@pytest.mark.parametrize("error", [RuntimeError("poison"), OperationalError(1205, "database is locked")])
def test_failing_attempt_or_batch_rings_for_skipped_webhooks(
    error: Exception, rings: list[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the attempt locks its organization, another worker skips a new webhook of it."""

    def post(*_: object) -> None:
        raise error

    monkeypatch.setattr(transactions, "BACKOFF_SECONDS", 0)
    monkeypatch.setattr(applying, "post", post)
    monkeypatch.setattr(trial_posting, "is_deployment_broken", lambda: False)  # only these webhooks fail
    alone, *together = (make_webhook(next_attempt_at=long_ago()) for _ in range(3))
    with pytest.raises(Ignore if isinstance(error, OperationalError) else applying.BatchFailed):
        tasks.retry_one(alone.pk, 1)
    assert rings
    rings.clear()
    with suppress(Ignore):
        tasks.retry_group([webhook.pk for webhook in together])
    assert rings
    rings.clear()
    make_webhook()
    with suppress(Ignore):
        tasks.apply_received()
    assert rings


@pytest.mark.parametrize("task", [tasks.apply_received, tasks.retry_one, tasks.retry_group])
def test_transient_error_that_outlasts_its_tries_is_a_warning(
    task: Any, rings: list[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(*_: object) -> None:
        raise OperationalError(1213, "Deadlock found; database is locked")

    monkeypatch.setattr(transactions, "BACKOFF_SECONDS", 0)
    monkeypatch.setattr(retries, "begin_attempts", begin)
    monkeypatch.setattr(claiming, "claim_round_robin", begin)
    arguments = {tasks.apply_received: (), tasks.retry_one: (1, 1), tasks.retry_group: ([1],)}[task]

    with structlog.testing.capture_logs() as events, pytest.raises(Ignore):
        task(*arguments)

    assert [
        event["log_level"] for event in events if event["event"] == "task ended by a transient error"
    ] == ["warning"]
    assert rings


def test_duplicate_group_message_is_ignored() -> None:
    webhook_ids = [make_webhook(next_attempt_at=long_ago()).pk for _ in range(2)]
    tasks.retry_group(webhook_ids)
    before = list(Webhook.objects.values())

    tasks.retry_group(webhook_ids)

    assert list(Webhook.objects.values()) == before
    assert balances() == {ROMASHKA: 200_00}
    assert applying.apply_ids([]) == set()
