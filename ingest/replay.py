"""A person puts failed webhooks back into the inbox.

Only failed webhooks move, each by an UPDATE that names the state it comes from, so of two people
who replay the same webhook one wins and the other is told. Who replayed what and when stays in the
admin's log, on the history page of each webhook.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field

import structlog
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.db import transaction

from ingest import doorbell
from ingest.models import Webhook

log = structlog.get_logger(__name__)

CHUNK_WEBHOOKS = 500  # in one transaction
UNKNOWN = "unknown"
_LEFT_ALONE = {
    Webhook.Status.APPLIED: "applied already (nothing to do)",
    Webhook.Status.RECEIVED: "waiting to be applied anyway",
    Webhook.Status.DISMISSED: "dismissed (not replayed)",
    Webhook.Status.FAILED: "failed again meanwhile",
    UNKNOWN: "unknown",
}


@dataclass
class Replayed:
    """What a replay came to: how many webhooks moved, and how many were left alone, by their status."""

    replayed: int = 0
    left_alone: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return ", ".join([f"{self.replayed} replayed", *self.reasons()])

    def reasons(self) -> list[str]:
        """Why others were left alone, with their number."""
        return [
            f"{self.left_alone[state]} {why}" for state, why in _LEFT_ALONE.items() if self.left_alone[state]
        ]


def replay(
    webhook_ids: Iterable[int],
    by: User,
    message: str = "Replayed.",
    watch: Callable[[int], object] = lambda webhooks: None,
) -> Replayed:
    """Move those of the webhooks that are failed to received, and ring.

    They get all their attempts again, from the common queue; `last_error` stays until they are
    applied. `message` goes into the admin's log; `watch` is told the size of each chunk that is done.
    Each chunk is committed on its own. A command may end before its ring is sent: the sweeper rings then.
    """
    done = Replayed()
    for chunk in _chunks(webhook_ids):
        moved = _move(chunk, by, message)
        done.replayed += len(moved)
        done.left_alone += survey(set(chunk) - moved)
        watch(len(chunk))
    log.info("webhooks replayed", by=by.get_username(), message=message, replayed=done.replayed)
    return done


def survey(webhook_ids: Iterable[int]) -> Counter[str]:
    """How many of the webhooks are in which state."""
    states: Counter[str] = Counter()
    for chunk in _chunks(webhook_ids):
        found = list(Webhook.objects.filter(id__in=chunk).values_list("status", flat=True))
        states.update({UNKNOWN: len(chunk) - len(found)})
        states.update(found)
    return +states


def _move(webhook_ids: Collection[int], by: User, message: str) -> set[int]:
    """Move one chunk in one transaction; returns the ids of those that moved."""
    failed = list(Webhook.objects.failed().filter(id__in=webhook_ids).only("operation_id").order_by("id"))
    with transaction.atomic():
        # One by one, because only so each UPDATE tells who has won, and because InnoDB then locks by
        # primary key, in its order: over the index of the status two replays would deadlock.
        moved = [webhook for webhook in failed if _moved(webhook)]
        LogEntry.objects.log_actions(by.pk, moved, CHANGE, message)
        if moved:
            transaction.on_commit(doorbell.ring)
    return {webhook.pk for webhook in moved}


def _moved(webhook: Webhook) -> bool:
    failed = Webhook.objects.failed().filter(id=webhook.pk)
    return failed.update(status=Webhook.Status.RECEIVED, attempts=0, next_attempt_at=None) == 1


def _chunks(webhook_ids: Iterable[int]) -> Iterator[list[int]]:
    ordered = sorted(set(webhook_ids))
    for start in range(0, len(ordered), CHUNK_WEBHOOKS):
        yield ordered[start : start + CHUNK_WEBHOOKS]
