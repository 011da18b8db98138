"""What Celery runs. A message only says where to look; rows carry the data and the attempts."""

import structlog
from billiard.exceptions import WorkerLostError
from celery import Task, shared_task
from celery.signals import task_failure
from django.conf import settings
from django.db import connection

from ingest import inbox
from ingest.models import Webhook
from worker import applying, attempts, sweeper, transactions

log = structlog.get_logger(__name__)

NOTHING_TO_DO = "nothing to do"


@shared_task(ignore_result=True)
def apply_received() -> None:
    """Apply one batch of the inbox. A batch that fails is taken apart, one task for each webhook."""
    try:
        applying.apply_batch(settings.BATCH_WEBHOOKS_MAX)
    except applying.BatchFailed as failed:
        log.warning("batch is taken apart", webhooks=len(failed.webhook_ids), error=repr(failed.__cause__))
        attempts.take_apart(failed.webhook_ids)


@shared_task
def apply_webhook(webhook_id: int, attempt: int) -> str:
    """Apply one webhook; what it raises stays in its TaskResult, with the traceback."""
    if not attempts.begin(webhook_id, attempt):
        return NOTHING_TO_DO
    try:
        claimed = applying.apply_one(webhook_id)
    except Exception as fault:
        if transactions.is_transient(fault):
            attempts.take_back(webhook_id, attempt)
        else:
            attempts.note_failure(webhook_id, repr(fault.__cause__ or fault))
        raise
    return Webhook.objects.values_list("status", flat=True).get(id=webhook_id) if claimed else NOTHING_TO_DO


@shared_task(ignore_result=True)
def sweep() -> None:
    sweeper.sweep()


@shared_task(ignore_result=True)
def forget_old_deliveries() -> None:
    inbox.forget_old_deliveries()


@task_failure.connect
def take_the_head_apart(sender: Task[..., object], exception: BaseException, **_: object) -> None:
    """A process died with its batch, perhaps because of one webhook in it.

    Its transaction is rolled back and its webhooks are the oldest of the queue again; the next
    process would die of them too. Runs in the worker's main process.
    """
    if not isinstance(exception, WorkerLostError):
        return
    connection.close()  # Celery stored the result with it, and nothing in this process would renew it
    try:
        if sender.name == apply_received.name:
            queued = Webhook.objects.queued()[: settings.BATCH_WEBHOOKS_MAX]
            attempts.take_apart(queued.values_list("pk", flat=True))
    finally:
        connection.close()  # the pool processes forked from here on must not inherit it
