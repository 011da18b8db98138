"""What Celery runs. A message only says where to look; rows carry the data and the attempts."""

import time
from collections import Counter
from collections.abc import Collection

import structlog
from billiard.exceptions import WorkerLostError
from celery import Task, shared_task
from celery.exceptions import Ignore
from celery.signals import task_failure, worker_ready
from django.conf import settings
from django.db import connection
from structlog.contextvars import bind_contextvars

from core.db import transactions
from ingest import doorbell
from ingest.models import Webhook
from worker import acting, applying, nightly_verification, retention, retries, sweeper, trial_posting

log = structlog.get_logger(__name__)

SECONDS_MAX = 1.0  # of a task; a warm shutdown waits for its end


@shared_task(ignore_result=True)
def apply_received() -> None:
    """Apply batches until nothing is left or a second has passed; a message for each batch would be slower.

    A batch that fails is taken apart, unless the deployment is at fault: then the queue stays as it is.
    """
    until = time.monotonic() + SECONDS_MAX
    try:
        while applied := applying.apply_batch(settings.BATCH_SIZE_MAX):
            is_over = time.monotonic() > until
            if is_over or applied == settings.BATCH_SIZE_MAX:
                doorbell.ring()  # for whoever comes after us, or for others to join in
            if is_over:
                break
    except applying.BatchFailed as failed:
        if trial_posting.is_deployment_broken():
            return
        log.warning(
            "batch failed; retrying individually",
            webhooks=len(failed.webhook_ids),
            error=repr(failed.__cause__),
        )
        retries.move_to_retries(failed.webhook_ids)
        retries.enqueue_due()
        doorbell.ring()  # for what is behind them
    except Exception:
        doorbell.ring()  # others may have passed over what came for organizations locked here
        raise


@shared_task(ignore_result=True)
def retry_group(webhook_ids: list[int]) -> None:
    """The first attempt of some webhooks, together. If that fails each is due again, alone."""
    begun = retries.begin_attempts(webhook_ids, 1)
    try:
        applied = _apply_and_ring(begun)
    except Exception as fault:
        if transactions.is_transient(fault):
            retries.undo_attempt(begun, 1)
            raise
        if trial_posting.is_deployment_broken():
            retries.postpone(begun, 1, _cause(fault))
            return
        if not isinstance(fault, applying.BatchFailed):
            raise
        operation_ids = [str(begun[webhook_id]) for webhook_id in fault.webhook_ids]
        log.warning("group failed; retrying individually", operation_ids=operation_ids, error=_cause(fault))
    else:
        retries.undo_attempt(set(begun) - applied, 1)


@shared_task
def retry_one(webhook_id: int, attempt: int) -> str:
    """Apply one webhook; what it raises stays in its TaskResult, with the traceback.

    What was no attempt leaves no result: while somebody holds an organization there are many of these.
    """
    operation_id = retries.begin_attempt(webhook_id, attempt)
    if operation_id is None:
        raise Ignore
    bind_contextvars(operation_id=str(operation_id), attempt=attempt)
    try:
        was_made = _apply_and_ring([webhook_id])
    except Exception as fault:
        if transactions.is_transient(fault):
            retries.undo_attempt([webhook_id], attempt)
        elif trial_posting.is_deployment_broken():
            retries.postpone([webhook_id], attempt, _cause(fault))
            raise Ignore from fault
        else:
            retries.record_failure(webhook_id, attempt, _cause(fault))
        raise
    if not was_made:
        retries.undo_attempt([webhook_id], attempt)
        raise Ignore
    return Webhook.objects.values_list("status", flat=True).get(id=webhook_id)


def _apply_and_ring(webhook_ids: Collection[int]) -> set[int]:
    try:
        return applying.apply_ids(webhook_ids)
    finally:
        doorbell.ring()  # likewise


def _cause(fault: Exception) -> str:
    """What went wrong, without BatchFailed around it."""
    return repr(fault.__cause__ or fault)


@shared_task(ignore_result=True)
def run_operator_actions() -> None:
    """As with apply_received: for a second, and then again. Of two at one act, one ends at once."""
    if acting.run_pending(SECONDS_MAX):
        doorbell.ring_now(doorbell.OPERATOR_ACTIONS_TASK)


@shared_task(ignore_result=True)
def sweep() -> None:
    sweeper.sweep()


@shared_task(ignore_result=True)
def prune() -> None:
    """A little at a time, because the next sweep waits meanwhile."""
    gone: Counter[str] = Counter()

    def watch(kind: retention.RetentionRule, rows: int) -> None:
        gone[kind.name] += rows

    retention.prune(watch, full_scan=False, seconds_max=SECONDS_MAX)
    if gone:
        log.info("rows pruned", **{kind.replace(" ", "_"): rows for kind, rows in gone.items()})


@shared_task(ignore_result=True)
def verify() -> None:
    nightly_verification.start_if_due()


@task_failure.connect
def on_worker_lost(sender: Task[..., object], exception: BaseException, **_: object) -> None:
    if isinstance(exception, WorkerLostError) and sender.name == apply_received.name:
        recover_dead_batches()


@worker_ready.connect
def recover_dead_batches(**_: object) -> None:
    """Processes of this worker, or of one before, died with batches. Runs in the worker's main process."""
    connection.close()  # Celery stored the result with it, and nothing in this process would renew it
    try:
        retries.move_dead_batches_to_retries()
        retries.enqueue_due()
    finally:
        connection.close()  # the pool processes forked from here on must not inherit it
