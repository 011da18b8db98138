"""Replay from start to end in one call, as the command does it."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from django.contrib.auth.models import User

from ingest import operator_actions
from ingest.models import OperatorAction, OperatorActionItem, Webhook

UNKNOWN = OperatorActionItem.Outcome.UNKNOWN
_LEFT_ALONE = {
    Webhook.Status.APPLIED: "applied already (nothing to do)",
    Webhook.Status.RECEIVED: "waiting to be applied anyway",
    Webhook.Status.DISMISSED: "dismissed (not replayed)",
    Webhook.Status.FAILED: "failed again meanwhile",
    UNKNOWN: "unknown",
}


@dataclass
class ReplayResult:
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
    reason: str,
    by_name: str = "",
    watch: Callable[[int], object] = lambda webhooks: None,
) -> ReplayResult:
    """Replay those of the webhooks that are failed; `watch` is told the size of each chunk that is done.

    A command may end before its ring is sent: the sweeper rings then.
    """
    ordered = sorted(set(webhook_ids))
    done = ReplayResult()
    for start in range(0, len(ordered), operator_actions.WEBHOOKS_MAX):
        action = operator_actions.create(
            OperatorAction.Kind.REPLAY,
            ordered[start : start + operator_actions.WEBHOOKS_MAX],
            by,
            reason,
            by_name,
        )
        while reached := operator_actions.run_chunk(action.pk, wait=True):
            watch(reached)
        outcomes = operator_actions.progress(action).outcomes
        done.replayed += outcomes.pop(OperatorActionItem.Outcome.DONE, 0)
        done.left_alone += outcomes
    return done


def count_by_status(webhook_ids: Iterable[int]) -> Counter[str]:
    """How many of the webhooks are in which state."""
    states: Counter[str] = Counter()
    for chunk in _chunks(webhook_ids):
        found = list(Webhook.objects.filter(id__in=chunk).values_list("status", flat=True))
        states.update({UNKNOWN: len(chunk) - len(found)})
        states.update(found)
    return +states


def _chunks(webhook_ids: Iterable[int]) -> Iterator[list[int]]:
    ordered = sorted(set(webhook_ids))
    for start in range(0, len(ordered), operator_actions.CHUNK_WEBHOOKS):
        yield ordered[start : start + operator_actions.CHUNK_WEBHOOKS]
