"""Webhooks that are applied a few at a time and then one by one, because with many others they failed.

An attempt is counted and committed before it begins, so that a webhook which kills its process
comes to an end too.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import structlog
from celery import Signature, current_app
from django.conf import settings
from django.db import DatabaseError, InterfaceError, transaction

from core.db import clock, transactions
from ingest import doorbell
from ingest.error_fingerprint import error_fields
from ingest.models import Webhook, WebhookQuerySet
from worker.batch_markers import dead_batches
from worker.metrics import ATTEMPTS, FAILED

log = structlog.get_logger(__name__)

SINGLE_TASK = "worker.tasks.retry_one"
GROUP_TASK = "worker.tasks.retry_group"
GROUP_MAX = 25  # webhooks
QUEUE = "attempts"
ENQUEUED_AT_ONCE_MAX = 500  # webhooks
QUEUE_LENGTH_MAX = 500  # messages in the broker; with as many, nobody listens or those who do have enough
RESEND_AFTER_SECONDS = 30  # a message that nobody has begun by then may be lost
POSTPONE_SECONDS = 30  # while the deployment is at fault
ERROR_CHARS_MAX = 2000
PROCESS_DIED = "the process died during the attempt"
_FAILED = {"status": Webhook.Status.FAILED, "next_attempt_at": None}


def move_to_retries(webhook_ids: Iterable[int]) -> None:
    """Out of the common queue, into attempts; those that somebody has claimed stay."""
    moved = _update_unlocked(
        Webhook.objects.queued().filter(id__in=list(webhook_ids)), next_attempt_at=clock.database_now()
    )
    if moved:
        log.debug("webhooks moved to retries", operation_ids=[str(webhook.operation_id) for webhook in moved])


def move_dead_batches_to_retries() -> None:
    """Take apart the batches that processes of this machine died with, perhaps of one webhook in each.

    Their transactions are rolled back, and the next process to claim these webhooks might die of them, too. A
    note stays until none of its webhooks is queued: the server may not have noticed the death yet, and still
    have them locked. Where notes are lost with their machine, the sweeper sets the stalled apart.
    """
    for note, webhook_ids in dead_batches().items():
        move_to_retries(webhook_ids)
        if not Webhook.objects.queued().filter(id__in=webhook_ids).exists():
            note.unlink(missing_ok=True)


def enqueue_due() -> list[Signature]:
    """Send tasks for the webhooks whose next attempt is due; returns the tasks that the broker didn't take.

    Sending twice does no harm: an attempt is begun only once. But as long as nobody listens each would be
    sent again and again, and fill the broker's memory; so with enough of them waiting none is sent.
    """
    if not _due(clock.database_now()).exists():
        return []
    unsent: list[Signature] | None = None
    try:
        with current_app.connection_for_write(transport_options=doorbell.BROKER_OPTIONS) as broker:
            if doorbell.queue_length(current_app, broker, QUEUE) >= QUEUE_LENGTH_MAX:
                return []
            unsent = _reserve_due()
            while unsent:
                unsent[-1].apply_async(connection=broker, retry=False)
                unsent.pop()
    except (DatabaseError, InterfaceError):
        raise
    except Exception as fault:  # noqa: BLE001 each transport has errors of its own
        log.warning("broker unreachable; retries not enqueued", error=repr(fault))
    return _reserve_due() if unsent is None else unsent


def _due(now: datetime) -> WebhookQuerySet:
    return Webhook.objects.due(now).filter(attempts__lt=settings.ATTEMPTS_MAX)


def _reserve_due() -> list[Signature]:
    """Tasks for the webhooks whose next attempt is due; they are due again when these may have been lost."""
    now = clock.database_now()
    sent_again_at = now + timedelta(seconds=RESEND_AFTER_SECONDS)
    return _tasks_for(_update_unlocked(_due(now)[:ENQUEUED_AT_ONCE_MAX], next_attempt_at=sent_again_at))


def release(tasks: Iterable[Signature]) -> None:
    """Nobody will run these tasks: what they are about is due again at once, unless somebody began it."""
    by_attempt: dict[int, list[int]] = defaultdict(list)
    for task in tasks:
        told = task.kwargs
        by_attempt[told.get("attempt", 1)] += told.get("webhook_ids") or [told["webhook_id"]]
    for attempt, webhook_ids in by_attempt.items():
        _update_unlocked(
            _awaiting_attempt(attempt).filter(id__in=webhook_ids), next_attempt_at=clock.database_now()
        )


def _tasks_for(webhooks: Sequence[Webhook]) -> list[Signature]:
    """The first attempt is made with a few others: of a batch of 500 that failed, most are applied by that.

    Those who share theirs with the one that made it fail have lost one attempt, so one must be left.
    """
    few = [webhook.pk for webhook in webhooks if webhook.attempts == 0]
    if len(few) == 1 or settings.ATTEMPTS_MAX == 1:
        few = []
    shared = [
        current_app.signature(GROUP_TASK, kwargs={"webhook_ids": few[first : first + GROUP_MAX]})
        for first in range(0, len(few), GROUP_MAX)
    ]
    own = [
        current_app.signature(
            SINGLE_TASK,
            kwargs={"webhook_id": webhook.pk, "attempt": webhook.attempts + 1},
            task_id=f"webhook-{webhook.pk}-{uuid4()}",
        )
        for webhook in webhooks
        if webhook.pk not in few
    ]
    return own + shared


def _update_unlocked(webhooks: WebhookQuerySet, **values: object) -> list[Webhook]:
    """Update those of `webhooks` that nobody has locked; returns them as they were.

    The rows are locked first and updated by primary key: an UPDATE that names the state would go by
    its index and wait for rows that workers have claimed.
    """
    with transaction.atomic():
        moved = list(webhooks.select_for_update(skip_locked=True).defer("body"))
        Webhook.objects.filter(id__in=[webhook.pk for webhook in moved]).update(**values)
    return moved


def webhook_id_from_task_id(task_id: str) -> int | None:
    """The webhook that a task sent by `send_due` is about; None for any other task."""
    match task_id.split("-", maxsplit=2):
        case ["webhook", number, _] if number.isdecimal():
            return int(number)
    return None


def begin_attempt(webhook_id: int, attempt: int) -> UUID | None:
    """Count attempt number `attempt`; the webhook's operation id, or None if it was begun before, or the
    webhook needs none.
    """
    return begin_attempts([webhook_id], attempt).get(webhook_id)


def begin_attempts(webhook_ids: Collection[int], attempt: int) -> dict[int, UUID]:
    """The same for several; returns the keys and operation ids of those that it counted."""
    before = _awaiting_attempt(attempt).filter(id__in=webhook_ids)
    begun = _update_unlocked(before, attempts=attempt, next_attempt_at=_backoff_until(attempt))
    ATTEMPTS.inc(len(begun))
    return {webhook.pk: webhook.operation_id for webhook in begun}


def _awaiting_attempt(attempt: int) -> WebhookQuerySet:
    return Webhook.objects.received().filter(attempts=attempt - 1, next_attempt_at__isnull=False)


def undo_attempt(webhook_ids: Collection[int], attempt: int) -> None:
    """What came between, a transient fault or a lock, says nothing about the webhooks: it doesn't count.

    The next attempt may have been sent meanwhile, and will find itself too early: so it is due anew.
    The fault may have been the database's own, and it may not be back at once. Raises as
    transactions.run does; then the attempt does count.
    """
    _undo(webhook_ids, attempt, lambda: _backoff_until(attempt))


def postpone(webhook_ids: Collection[int], attempt: int, error: str) -> None:
    """Likewise for a fault of the deployment, which lasts until a person repairs it; `error` is kept."""
    _undo(webhook_ids, attempt, _postponed_until, **error_fields(error[:ERROR_CHARS_MAX]))


def postpone_exhausted() -> None:
    """Give back the last attempt of webhooks whose processes died by a fault of the deployment."""
    one_left = settings.ATTEMPTS_MAX - 1
    _update_unlocked(
        exhausted()[:ENQUEUED_AT_ONCE_MAX], attempts=one_left, next_attempt_at=_postponed_until()
    )


def _undo(
    webhook_ids: Collection[int], attempt: int, next_at: Callable[[], datetime], **values: object
) -> None:
    def move_back() -> None:
        _update_unlocked(
            _in_attempt(webhook_ids, attempt), attempts=attempt - 1, next_attempt_at=next_at(), **values
        )

    transactions.run_with_retries(move_back)


def _in_attempt(webhook_ids: Collection[int], attempt: int) -> WebhookQuerySet:
    """Those of the webhooks whose newest attempt is this one."""
    return Webhook.objects.received().filter(id__in=webhook_ids, attempts=attempt)


def _postponed_until() -> datetime:
    return clock.database_now() + timedelta(seconds=POSTPONE_SECONDS)


def _backoff_until(attempt: int) -> datetime:
    return clock.database_now() + timedelta(seconds=settings.RETRY_BACKOFF_SECONDS * 2 ** (attempt - 1))


def record_failure(webhook_id: int, attempt: int, error: str) -> None:
    """Keep what went wrong. After the last attempt the webhook is failed, until a person replays it.

    An attempt that lasted until the next one had begun changes nothing: that one decides.
    """
    its = _in_attempt([webhook_id], attempt)
    if attempt >= settings.ATTEMPTS_MAX:
        if its.update(**_FAILED, **error_fields(error[:ERROR_CHARS_MAX])):
            FAILED.labels(exception_class(error)).inc()
            log.error("webhook failed", webhook_id=webhook_id, attempts=attempt, error=error)
    elif its.update(**error_fields(error[:ERROR_CHARS_MAX])):
        log.warning("attempt failed", webhook_id=webhook_id, error=error)


def exception_class(error: str) -> str:
    """The class of an exception, of its repr(): what is counted by must have few values."""
    return error.partition("(")[0]


def exhausted() -> WebhookQuerySet:
    """Those whose last attempt has had its time, and neither succeeded nor said why not."""
    return Webhook.objects.due(clock.database_now()).filter(attempts__gte=settings.ATTEMPTS_MAX)


def fail_exhausted() -> int:
    """Fail the webhooks whose last attempt never told how it ended; returns how many.

    Those that are locked are left alone: their last attempt is still running.
    """
    silent, spoke = exhausted().filter(last_error=""), exhausted().exclude(last_error="")
    failed = _update_unlocked(silent[:ENQUEUED_AT_ONCE_MAX], **_FAILED, **error_fields(PROCESS_DIED))
    failed += _update_unlocked(spoke[:ENQUEUED_AT_ONCE_MAX], **_FAILED)
    for webhook in failed:
        FAILED.labels(exception_class(webhook.last_error or "died")).inc()
        log.error(
            "webhook failed",
            webhook_id=webhook.pk,
            operation_id=str(webhook.operation_id),
            attempts=webhook.attempts,
            error=webhook.last_error or PROCESS_DIED,
        )
    return len(failed)
