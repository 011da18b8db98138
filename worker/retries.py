"""Retry webhooks whose batch failed: first in small groups, then one by one, with exponential backoff.

An attempt is counted and committed before it begins, so a webhook that kills its process runs out of attempts
too.
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
QUEUE_LENGTH_MAX = 500  # messages in the broker; at this length the workers are down or have enough to do
RESEND_AFTER_SECONDS = 30  # a message that no worker has started by then may be lost
POSTPONE_SECONDS = 30  # while the deployment is broken
ERROR_CHARS_MAX = 2000
PROCESS_DIED = "the process died during the attempt"
_FAILED = {"status": Webhook.Status.FAILED, "next_attempt_at": None}


def move_to_retries(webhook_ids: Iterable[int]) -> None:
    """Move webhooks from the common queue to retries; skip locked ones."""
    queued = Webhook.objects.queued().filter(id__in=list(webhook_ids))
    moved = _update_unlocked(queued, next_attempt_at=clock.database_now())
    if moved:
        log.debug("webhooks moved to retries", operation_ids=[str(webhook.operation_id) for webhook in moved])


def move_dead_batches_to_retries() -> None:
    """Move the batches of dead processes of this machine to retries.

    One of the webhooks may have killed the process, and may kill the next one that claims it. A marker stays
    until none of its webhooks is queued: the server may still have them locked, unaware of the death. If
    markers are lost with their machine, the sweeper isolates stalled webhooks.
    """
    for marker, webhook_ids in dead_batches().items():
        move_to_retries(webhook_ids)
        if not Webhook.objects.queued().filter(id__in=webhook_ids).exists():
            marker.unlink(missing_ok=True)


def enqueue_due() -> list[Signature]:
    """Send tasks for the webhooks whose next attempt is due; return the tasks that the broker did not accept.

    A duplicate message is harmless: an attempt begins only once. But without running workers each sweep would
    send another one and fill the broker's memory, so a long queue stops it.
    """
    if not _due(clock.database_now()).exists():
        return []
    unsent: list[Signature] | None = None
    try:
        with doorbell.broker_connection(current_app) as broker:
            if doorbell.queue_length(current_app, broker, QUEUE) >= QUEUE_LENGTH_MAX:
                return []
            unsent = _reserve_due()
            while unsent:
                unsent[-1].apply_async(connection=broker, retry=False)
                unsent.pop()
    except (DatabaseError, InterfaceError):
        raise
    except Exception as exc:  # noqa: BLE001 each transport has errors of its own
        log.warning("broker unreachable; retries not enqueued", error=repr(exc))
    return _reserve_due() if unsent is None else unsent


def _due(now: datetime) -> WebhookQuerySet:
    return Webhook.objects.due(now).filter(attempts__lt=settings.ATTEMPTS_MAX)


def _reserve_due() -> list[Signature]:
    """Return tasks for the due webhooks, which become due again after RESEND_AFTER_SECONDS."""
    now = clock.database_now()
    resend_at = now + timedelta(seconds=RESEND_AFTER_SECONDS)
    return _tasks_for(_update_unlocked(_due(now)[:ENQUEUED_AT_ONCE_MAX], next_attempt_at=resend_at))


def release(tasks: Iterable[Signature]) -> None:
    """Make the webhooks of unsent tasks due at once, unless their attempt has begun."""
    by_attempt: dict[int, list[int]] = defaultdict(list)
    for task in tasks:
        kwargs = task.kwargs
        by_attempt[kwargs.get("attempt", 1)] += kwargs.get("webhook_ids") or [kwargs["webhook_id"]]
    for attempt, webhook_ids in by_attempt.items():
        awaiting = _awaiting_attempt(attempt).filter(id__in=webhook_ids)
        _update_unlocked(awaiting, next_attempt_at=clock.database_now())


def _tasks_for(webhooks: Sequence[Webhook]) -> list[Signature]:
    """Return group tasks for first attempts and single tasks for the others.

    Groups apply most webhooks of a failed batch of 500 with few tasks. A group attempt that fails costs every
    member one attempt, so grouping requires one more to remain.
    """
    first_attempts = [webhook.pk for webhook in webhooks if webhook.attempts == 0]
    if len(first_attempts) == 1 or settings.ATTEMPTS_MAX == 1:
        first_attempts = []
    groups = [
        current_app.signature(GROUP_TASK, kwargs={"webhook_ids": first_attempts[start : start + GROUP_MAX]})
        for start in range(0, len(first_attempts), GROUP_MAX)
    ]
    singles = [
        current_app.signature(
            SINGLE_TASK,
            kwargs={"webhook_id": webhook.pk, "attempt": webhook.attempts + 1},
            task_id=f"webhook-{webhook.pk}-{uuid4()}",
        )
        for webhook in webhooks
        if webhook.pk not in first_attempts
    ]
    return singles + groups


def _update_unlocked(webhooks: WebhookQuerySet, **values: object) -> list[Webhook]:
    """Update the unlocked rows of `webhooks`; return them as they were before.

    The rows are locked first and updated by primary key: an UPDATE that filters by state would use its index
    and wait for rows that workers have claimed.
    """
    with transaction.atomic():
        updated = list(webhooks.select_for_update(skip_locked=True).defer("body"))
        Webhook.objects.filter(id__in=[webhook.pk for webhook in updated]).update(**values)
    return updated


def webhook_id_from_task_id(task_id: str) -> int | None:
    """Return the webhook's key from the id of a task that `enqueue_due` sent; None for any other task."""
    match task_id.split("-", maxsplit=2):
        case ["webhook", number, _] if number.isdecimal():
            return int(number)
    return None


def begin_attempt(webhook_id: int, attempt: int) -> UUID | None:
    """Count attempt number `attempt`; return the webhook's operation id.

    Return None if the attempt has begun before, or the webhook needs none.
    """
    return begin_attempts([webhook_id], attempt).get(webhook_id)


def begin_attempts(webhook_ids: Collection[int], attempt: int) -> dict[int, UUID]:
    """Count attempt number `attempt` of several webhooks; return operation ids by key of those counted."""
    awaiting = _awaiting_attempt(attempt).filter(id__in=webhook_ids)
    begun = _update_unlocked(awaiting, attempts=attempt, next_attempt_at=_backoff_until(attempt))
    ATTEMPTS.inc(len(begun))
    return {webhook.pk: webhook.operation_id for webhook in begun}


def _awaiting_attempt(attempt: int) -> WebhookQuerySet:
    return Webhook.objects.received().filter(attempts=attempt - 1, next_attempt_at__isnull=False)


def undo_attempt(webhook_ids: Collection[int], attempt: int) -> None:
    """Uncount an attempt that a transient error or a lock prevented: it says nothing about the webhooks.

    The webhooks become due anew, because a message of the next attempt, if already sent, is ignored as too
    early. Raises as run_with_retries does, for example if the database stays unavailable; then the attempt
    stays counted.
    """
    _undo(webhook_ids, attempt, lambda: _backoff_until(attempt))


def postpone(webhook_ids: Collection[int], attempt: int, error: str) -> None:
    """Uncount an attempt that failed because the deployment is broken, and store `error`."""
    _undo(webhook_ids, attempt, _postponed_until, **error_fields(error[:ERROR_CHARS_MAX]))


def postpone_exhausted() -> None:
    """Uncount the last attempt of exhausted webhooks, because the deployment is broken."""
    webhooks = exhausted()[:ENQUEUED_AT_ONCE_MAX]
    _update_unlocked(webhooks, attempts=settings.ATTEMPTS_MAX - 1, next_attempt_at=_postponed_until())


def _undo(
    webhook_ids: Collection[int], attempt: int, next_at: Callable[[], datetime], **values: object
) -> None:
    def uncount() -> None:
        webhooks = _in_attempt(webhook_ids, attempt)
        _update_unlocked(webhooks, attempts=attempt - 1, next_attempt_at=next_at(), **values)

    transactions.run_with_retries(uncount)


def _in_attempt(webhook_ids: Collection[int], attempt: int) -> WebhookQuerySet:
    """Return those of the webhooks whose latest attempt is `attempt`."""
    return Webhook.objects.received().filter(id__in=webhook_ids, attempts=attempt)


def _postponed_until() -> datetime:
    return clock.database_now() + timedelta(seconds=POSTPONE_SECONDS)


def _backoff_until(attempt: int) -> datetime:
    delay = settings.RETRY_BACKOFF_SECONDS * 2 ** (attempt - 1)
    return clock.database_now() + timedelta(seconds=delay)


def record_failure(webhook_id: int, attempt: int, error: str) -> None:
    """Store the error of an attempt; after the last attempt, fail the webhook until an operator replays it.

    Ignored if the next attempt has begun meanwhile: the outcome of that one counts.
    """
    webhook = _in_attempt([webhook_id], attempt)
    if attempt >= settings.ATTEMPTS_MAX:
        if webhook.update(**_FAILED, **error_fields(error[:ERROR_CHARS_MAX])):
            FAILED.labels(exception_class(error)).inc()
            log.error("webhook failed", webhook_id=webhook_id, attempts=attempt, error=error)
    elif webhook.update(**error_fields(error[:ERROR_CHARS_MAX])):
        log.warning("attempt failed", webhook_id=webhook_id, error=error)


def exception_class(error: str) -> str:
    """Return the class name in an exception's repr(): a metric's label must have few values."""
    return error.partition("(")[0]


def exhausted() -> WebhookQuerySet:
    """Return the webhooks whose last attempt has timed out without success or failure."""
    return Webhook.objects.due(clock.database_now()).filter(attempts__gte=settings.ATTEMPTS_MAX)


def fail_exhausted() -> int:
    """Fail exhausted webhooks; return the count. Skip locked ones: their last attempt is still running."""
    without_error, with_error = exhausted().filter(last_error=""), exhausted().exclude(last_error="")
    failed = _update_unlocked(without_error[:ENQUEUED_AT_ONCE_MAX], **_FAILED, **error_fields(PROCESS_DIED))
    failed += _update_unlocked(with_error[:ENQUEUED_AT_ONCE_MAX], **_FAILED)
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
