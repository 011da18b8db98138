"""Celery tasks. A message only wakes up a worker or names webhooks: data and attempts are in the rows."""

import time
from collections import Counter
from collections.abc import Callable, Collection
from functools import wraps
from typing import ParamSpec, TypeVar

import structlog
from billiard.exceptions import WorkerLostError
from celery import Task, shared_task
from celery.exceptions import Ignore
from celery.signals import task_failure, worker_ready
from django.conf import settings
from django.db import connection
from structlog.contextvars import bind_contextvars

from core.db import transactions
from ingest import doorbell, operator_actions, version_corrections
from ingest.models import Webhook
from worker import applying, nightly_verification, retention, retries, sweeper, trial_posting

log = structlog.get_logger(__name__)

SECONDS_MAX = 1.0  # of a task; a warm shutdown waits for its end
P = ParamSpec("P")
R = TypeVar("R")


def outlasting_transient_errors(task: Callable[P, R]) -> Callable[P, R]:
    """End `task` with a warning and a ring if a transient error outlasts its tries, as during a failover.

    The rows say what is left to do, so there is no result to store, and no traceback to read.
    """

    @wraps(task)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return task(*args, **kwargs)
        except Exception as exc:
            if not transactions.is_transient(exc):
                raise
            log.warning("task ended by a transient error", error=repr(exc))
            doorbell.ring()
            raise Ignore from exc

    return run


@shared_task(ignore_result=True)
@outlasting_transient_errors
def apply_received() -> None:
    """Apply batches until the queue is empty or a second has passed; one message per batch would be slower.

    Then apply the corrections by the bank that are due. A batch that fails moves to retries, unless the
    deployment is broken: then it stays in the queue.
    """
    until = time.monotonic() + SECONDS_MAX
    try:
        while applied := applying.apply_batch(settings.BATCH_SIZE_MAX):
            is_over = time.monotonic() > until
            if is_over or applied == settings.BATCH_SIZE_MAX:
                doorbell.ring()  # for the next task to continue, or for other workers to join in
            if is_over:
                break
    except applying.BatchFailed as exc:
        if trial_posting.is_deployment_broken():
            return
        log.warning("batch failed; retrying individually", webhooks=len(exc.webhook_ids), error=_cause(exc))
        retries.move_to_retries(exc.webhook_ids)
        retries.enqueue_due()
        doorbell.ring()  # for the rest of the queue
    except Exception:
        doorbell.ring()  # other workers may have skipped new webhooks of organizations locked here
        raise
    if version_corrections.run_due(until):
        doorbell.ring()


@shared_task(ignore_result=True)
@outlasting_transient_errors
def retry_group(webhook_ids: list[int]) -> None:
    """Make the first attempt of some webhooks together. If it fails, each is due again on its own."""
    begun = retries.begin_attempts(webhook_ids, 1)
    try:
        applied = _apply_and_ring(begun)
    except Exception as exc:
        if transactions.is_transient(exc):
            retries.undo_attempt(begun, 1)
            raise
        if trial_posting.is_deployment_broken():
            retries.postpone(begun, 1, _cause(exc))
            return
        if not isinstance(exc, applying.BatchFailed):
            raise
        operation_ids = [str(begun[webhook_id]) for webhook_id in exc.webhook_ids]
        log.warning("group failed; retrying individually", operation_ids=operation_ids, error=_cause(exc))
    else:
        retries.undo_attempt(set(begun) - applied, 1)


@shared_task
@outlasting_transient_errors
def retry_one(webhook_id: int, attempt: int) -> str:
    """Make attempt number `attempt` of one webhook; return its new status.

    An exception is stored in the TaskResult, with the traceback. A skipped attempt stores no result: while an
    organization is locked there are many of these.
    """
    operation_id = retries.begin_attempt(webhook_id, attempt)
    if operation_id is None:
        raise Ignore
    bind_contextvars(operation_id=str(operation_id), attempt=attempt)
    try:
        applied = _apply_and_ring([webhook_id])
    except Exception as exc:
        if transactions.is_transient(exc):
            retries.undo_attempt([webhook_id], attempt)
        elif trial_posting.is_deployment_broken():
            retries.postpone([webhook_id], attempt, _cause(exc))
            raise Ignore from exc
        else:
            retries.record_failure(webhook_id, attempt, _cause(exc))
        raise
    if not applied:
        retries.undo_attempt([webhook_id], attempt)
        raise Ignore
    return Webhook.objects.values_list("status", flat=True).get(id=webhook_id)


def _apply_and_ring(webhook_ids: Collection[int]) -> set[int]:
    try:
        return applying.apply_ids(webhook_ids)
    finally:
        doorbell.ring()  # other workers may have skipped new webhooks of organizations locked here


def _cause(exc: Exception) -> str:
    """Return the repr() of the original exception, without BatchFailed around it."""
    return repr(exc.__cause__ or exc)


@shared_task(ignore_result=True)
@outlasting_transient_errors
def run_operator_actions() -> None:
    """Run pending operator actions for up to 1 s, then re-enqueue.

    Of concurrent runs of one action all but one exit early.
    """
    if operator_actions.run_pending(SECONDS_MAX):
        doorbell.ring_now(doorbell.OPERATOR_ACTIONS_TASK)


@shared_task(ignore_result=True)
def sweep() -> None:
    sweeper.sweep()


@shared_task(ignore_result=True)
def prune() -> None:
    """Delete expired rows for up to 1 s, because the next sweep waits for the end."""
    pruned: Counter[str] = Counter()

    def count(rule: retention.RetentionRule, rows: int) -> None:
        pruned[rule.name] += rows

    retention.prune(count, full_scan=False, seconds_max=SECONDS_MAX)
    if pruned:
        log.info("rows pruned", **{name.replace(" ", "_"): rows for name, rows in pruned.items()})


@shared_task(ignore_result=True)
def verify() -> None:
    nightly_verification.start_if_due()


@task_failure.connect
def on_worker_lost(sender: Task[..., object], exception: BaseException, **_: object) -> None:
    if isinstance(exception, WorkerLostError) and sender.name == apply_received.name:
        recover_dead_batches()


@worker_ready.connect
def recover_dead_batches(**_: object) -> None:
    """Retry the batches of dead pool processes, of this worker or an earlier one.

    Runs in the main process.
    """
    connection.close()  # Celery stored a result with it, and nothing in this process would renew it
    try:
        retries.move_dead_batches_to_retries()
        retries.enqueue_due()
    finally:
        connection.close()  # pool processes forked from now on must not inherit it
