"""Looks every few seconds for what nobody rang for, so that nothing waits for a lost message."""

from datetime import timedelta

from django.conf import settings
from django.utils import timezone

from ingest import doorbell
from ingest.models import Webhook
from worker import attempts

STALLED_AT_ONCE_MAX = 10


def sweep() -> None:
    """1. Ring if the common queue isn't empty.
    2. Give each of the oldest stalled webhooks an attempt of its own.
    3. Fail those whose last attempt died, and send out the attempts that are due.
    """
    if Webhook.objects.queued().exists():
        doorbell.ring()
    _set_stalled_apart()
    attempts.give_up_on_exhausted()
    attempts.send_due()


def _set_stalled_apart() -> None:
    """A webhook that kills every worker with its batch would stall the queue behind it for ever.

    Only a few of the oldest at a time: behind a long backlog old webhooks are no sign of trouble,
    and batches are how it gets shorter.
    """
    long_ago = timezone.now() - timedelta(seconds=settings.STALLED_AFTER_SECONDS)
    stalled = Webhook.objects.queued().filter(received_at__lt=long_ago)[:STALLED_AT_ONCE_MAX]
    attempts.take_apart(stalled.values_list("pk", flat=True))
