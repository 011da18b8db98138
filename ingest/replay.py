"""Replay a set of webhooks to the end in one call, for the replay command."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from django.contrib.auth.models import User

from ingest import action_progress, operator_actions
from ingest.models import OperatorAction, OperatorActionItem, Webhook

UNKNOWN = OperatorActionItem.Outcome.UNKNOWN
_SKIP_REASONS = {
    Webhook.Status.APPLIED: "already applied",
    Webhook.Status.RECEIVED: "already queued",
    Webhook.Status.DISMISSED: "already dismissed",
    Webhook.Status.FAILED: "failed again meanwhile",
    Webhook.Status.HELD: "held as a suspected duplicate",
    Webhook.Status.MERGED: "merged into a payment from a bank statement",
    UNKNOWN: "unknown",
}


@dataclass
class ReplayResult:
    """How many webhooks were replayed, and how many skipped, by the status they were in."""

    replayed: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        reasons = [
            f"{self.skipped[status]} {why}" for status, why in _SKIP_REASONS.items() if self.skipped[status]
        ]
        return ", ".join([f"{self.replayed} replayed", *reasons])


def replay(
    webhook_ids: Iterable[int],
    by: User,
    reason: str,
    by_name: str = "",
    on_progress: Callable[[int], object] = lambda webhooks: None,
) -> ReplayResult:
    """Replay the failed ones of the webhooks; call `on_progress` with the size of each finished chunk.

    A command may exit before its doorbell ring is sent; the sweeper rings then.
    """
    ordered = sorted(set(webhook_ids))
    result = ReplayResult()
    for start in range(0, len(ordered), operator_actions.WEBHOOKS_MAX):
        chunk = ordered[start : start + operator_actions.WEBHOOKS_MAX]
        action = operator_actions.create(OperatorAction.Kind.REPLAY, chunk, by, reason, by_name)
        while processed := operator_actions.run_chunk(action.pk, wait=True):
            on_progress(processed)
        outcomes = action_progress.progress(action).outcomes
        result.replayed += outcomes.pop(OperatorActionItem.Outcome.DONE, 0)
        result.skipped += outcomes
    return result


def count_by_status(webhook_ids: Iterable[int]) -> Counter[str]:
    """Count the webhooks by status; keys without a webhook count as UNKNOWN."""
    counts: Counter[str] = Counter()
    for chunk in _chunks(webhook_ids):
        statuses = list(Webhook.objects.filter(id__in=chunk).values_list("status", flat=True))
        counts.update({UNKNOWN: len(chunk) - len(statuses)})
        counts.update(statuses)
    return +counts


def _chunks(webhook_ids: Iterable[int]) -> Iterator[list[int]]:
    ordered = sorted(set(webhook_ids))
    for start in range(0, len(ordered), operator_actions.CHUNK_WEBHOOKS):
        yield ordered[start : start + operator_actions.CHUNK_WEBHOOKS]
