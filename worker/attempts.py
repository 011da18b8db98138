"""Webhooks that are applied one by one, because together with others they failed.

An attempt is counted and committed before it begins, so that a webhook which kills its process
comes to an end too.
"""

from collections.abc import Iterable
from datetime import timedelta
from uuid import uuid4

import structlog
from celery import current_app
from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from ingest.doorbell import BROKER_OPTIONS
from ingest.models import Webhook, WebhookQuerySet

log = structlog.get_logger(__name__)

TASK = "worker.tasks.apply_webhook"
SENT_AT_ONCE_MAX = 500
SEND_AGAIN_AFTER_SECONDS = 30  # a message that nobody has begun by then may be lost
ERROR_CHARS_MAX = 2000
DIED = "the process died during the attempt"
_FAILED = {"status": Webhook.Status.FAILED, "next_attempt_at": None}


def take_apart(webhook_ids: Iterable[int]) -> None:
    """Out of the common queue, each on its own from now on; those that somebody has claimed stay."""
    _move(Webhook.objects.queued().filter(id__in=list(webhook_ids)), next_attempt_at=timezone.now())
    send_due()


def send_due() -> int:
    """Send a task for each webhook whose next attempt is due; returns how many.

    Sending twice does no harm: the task names the attempt it is for, and only one can begin it.
    """
    now = timezone.now()
    due = Webhook.objects.due(now).filter(attempts__lt=settings.ATTEMPTS_MAX)
    sent = _move(due[:SENT_AT_ONCE_MAX], next_attempt_at=now + timedelta(seconds=SEND_AGAIN_AFTER_SECONDS))
    # What a broken broker doesn't take is due again soon.
    with current_app.connection_for_write(transport_options=BROKER_OPTIONS) as broker:
        for webhook in sent:
            current_app.send_task(
                TASK,
                kwargs={"webhook_id": webhook.pk, "attempt": webhook.attempts + 1},
                task_id=f"webhook-{webhook.pk}-{uuid4()}",
                connection=broker,
                retry=False,
            )
    return len(sent)


def _move(webhooks: WebhookQuerySet, **values: object) -> list[Webhook]:
    """Update those of `webhooks` that nobody has locked; returns them as they were.

    The rows are locked first and updated by primary key: an UPDATE that names the state would go by
    its index and wait for rows that workers have claimed.
    """
    with transaction.atomic():
        moved = list(webhooks.select_for_update(skip_locked=True).defer("body"))
        Webhook.objects.filter(id__in=[webhook.pk for webhook in moved]).update(**values)
    return moved


def webhook_id_of(task_id: str) -> int | None:
    """The webhook that a task sent by `send_due` is about; None for any other task."""
    match task_id.split("-", maxsplit=2):
        case ["webhook", number, _] if number.isdecimal():
            return int(number)
    return None


def begin(webhook_id: int, attempt: int) -> bool:
    """Count attempt number `attempt`; False if it was begun before, or the webhook needs none."""
    delay_seconds = settings.ATTEMPT_DELAY_SECONDS * 2 ** (attempt - 1)
    begun = Webhook.objects.received().filter(
        id=webhook_id, attempts=attempt - 1, next_attempt_at__isnull=False
    )
    next_attempt_at = timezone.now() + timedelta(seconds=delay_seconds)
    return begun.update(attempts=attempt, next_attempt_at=next_attempt_at) == 1


def take_back(webhook_id: int, attempt: int) -> None:
    """The attempt met a transient fault, which says nothing about the webhook: it doesn't count."""
    Webhook.objects.received().filter(id=webhook_id, attempts=attempt).update(attempts=F("attempts") - 1)


def note_failure(webhook_id: int, error: str) -> None:
    """Keep what went wrong. After the last attempt the webhook is failed, until a person replays it."""
    received = Webhook.objects.received().filter(id=webhook_id)
    received.update(last_error=error[:ERROR_CHARS_MAX])
    if received.filter(attempts__gte=settings.ATTEMPTS_MAX).update(**_FAILED):
        log.error("webhook failed", webhook_id=webhook_id, attempts=settings.ATTEMPTS_MAX, error=error)


def give_up_on_exhausted() -> int:
    """Fail the webhooks whose last attempt never told how it ended; returns how many.

    Those that are locked are left alone: their last attempt is still running.
    """
    exhausted = Webhook.objects.due(timezone.now()).filter(attempts__gte=settings.ATTEMPTS_MAX)
    silent, spoke = exhausted.filter(last_error=""), exhausted.exclude(last_error="")
    failed = _move(silent[:SENT_AT_ONCE_MAX], **_FAILED, last_error=DIED)
    failed += _move(spoke[:SENT_AT_ONCE_MAX], **_FAILED)
    return len(failed)
