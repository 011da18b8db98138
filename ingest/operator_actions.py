"""What persons do about webhooks: replay and dismiss failed ones, resolve conflicts; each for a reason.

What they do about unrecognized deliveries is in ingest/unrecognized.py.

An act begins as rows, committed together: who, why, and each webhook that it is about. Then it is carried
out a chunk at a time, each in one transaction with what became of its webhooks, by whoever comes by: the
request, a worker, the sweeper. So an act survives whoever carries it out, reaches each webhook once, and
its rows are the audit trail. A webhook moves only if it is failed while its row is locked: of two persons who
act on the same one, one wins and the other is told.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

import structlog
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Count, F, Q, QuerySet, Value

from core.db import lookups  # noqa: F401 registers the look-up id__in_literals
from core.db.insert_select import insert_select
from ingest import doorbell, unrecognized
from ingest.confirmation import digest
from ingest.exceptions import NothingToDo, StaleConfirmation
from ingest.models import (
    ACTION_REASON_CHARS_MAX,
    ConflictingDelivery,
    OperatorAction,
    OperatorActionItem,
    UnrecognizedDelivery,
    Webhook,
)

log = structlog.get_logger(__name__)

WEBHOOKS_MAX = 200_000  # webhooks, by one act
CHUNK_WEBHOOKS = 500  # in one transaction
INSERT_BATCH_ROWS = 1000  # rows
OPERATIONS_LOGGED_MAX = 10  # of an act; the audit trail has all of them
Outcome = OperatorActionItem.Outcome


def eligible(kind: OperatorAction.Kind, webhooks: QuerySet[Webhook]) -> QuerySet[Webhook]:
    """Those of `webhooks` that the act would move at this moment."""
    if kind == OperatorAction.Kind.RESOLVE:
        # Written out, because MariaDB would read all webhooks and look into this table for each of them.
        open_conflicts = ConflictingDelivery.objects.filter(resolved_by=None).order_by()
        return webhooks.filter(id__in_literals=set(open_conflicts.values_list("webhook_id", flat=True)))
    return webhooks.filter(status=Webhook.Status.FAILED)


def state_digest(kind: OperatorAction.Kind, webhooks: QuerySet[Webhook]) -> str:
    """Return a digest of what the act would move of `webhooks` at this moment; empty if that is nothing.

    A confirmation page carries it, and `begin` compares. It changes with each webhook that fails or is moved,
    with one that is replayed and fails again, and for a resolution with each conflicting delivery.
    """
    return digest(_affected(kind, webhooks))


def _affected(kind: OperatorAction.Kind, webhooks: QuerySet[Webhook]) -> list[tuple[int, int]]:
    """The keys of the webhooks, at most ACTED_ON_MAX of them, each with the number of acts that moved it
    before; for a resolution once with the key of each open conflict.
    """
    if kind == OperatorAction.Kind.RESOLVE:
        keys = set(eligible(kind, webhooks).order_by("id").values_list("id", flat=True)[:WEBHOOKS_MAX])
        conflicts = ConflictingDelivery.objects.filter(resolved_by=None).order_by("webhook_id", "id")
        return [pair for pair in conflicts.values_list("webhook_id", "id") if pair[0] in keys]
    moved_before = Count("action_items", filter=Q(action_items__outcome=Outcome.DONE))
    ready = eligible(kind, Webhook.objects.filter(pk__in=webhooks.order_by().values("pk")))
    return list(ready.values_list("id").annotate(moved=moved_before).order_by("id")[:WEBHOOKS_MAX])


def create(
    kind: OperatorAction.Kind,
    webhook_ids: Iterable[int],
    by: User,
    reason: str,
    by_name: str = "",
    shown: str | None = None,
) -> OperatorAction:
    """Write down that the act is to be done; nothing has moved yet. `by_name` says more than the user's name.

    `shown` is the fingerprint that the person has confirmed. Raises ValueError without a reason, NothingToDo
    without webhooks, StaleConfirmation if the act would by now move other webhooks or conflicts than shown.
    """
    ordered = sorted(set(webhook_ids))[:WEBHOOKS_MAX]

    def write_down(action: OperatorAction) -> int:
        about = (OperatorActionItem(action=action, webhook_id=webhook_id) for webhook_id in ordered)
        return len(OperatorActionItem.objects.bulk_create(about, batch_size=INSERT_BATCH_ROWS))

    return _create(
        OperatorAction(kind=kind, by=by, by_name=by_name or by.get_username()), reason, write_down, shown
    )


def create_for_queryset(
    kind: OperatorAction.Kind, webhooks: QuerySet[Webhook], by: User, reason: str, shown: str | None = None
) -> OperatorAction:
    """As `begin`, about all of `webhooks` that it would move at this moment, by one INSERT … SELECT."""
    chosen = eligible(kind, webhooks).order_by("id")[:WEBHOOKS_MAX]

    def write_down(action: OperatorAction) -> int:
        pending = Value(Outcome.PENDING.value)
        return insert_select(
            OperatorActionItem, chosen, action=Value(action.pk), webhook=F("id"), outcome=pending
        )

    return _create(OperatorAction(kind=kind, by=by, by_name=by.get_username()), reason, write_down, shown)


def create_for_deliveries(
    kind: OperatorAction.Kind,
    deliveries: QuerySet[UnrecognizedDelivery],
    by: User,
    reason: str,
    shown: str | None = None,
) -> OperatorAction:
    """As `begin_on_all`, about the open ones of `deliveries` that no other act has still to reach."""
    action = OperatorAction(kind=kind, by=by, by_name=by.get_username())
    return _create(action, reason, lambda action: unrecognized.claim(action, deliveries, shown), None)


def _create(
    action: OperatorAction, reason: str, write_down: Callable[[OperatorAction], int], shown: str | None
) -> OperatorAction:
    action.reason = reason.strip()[:ACTION_REASON_CHARS_MAX]
    if not action.reason:
        raise ValueError("an act has a reason")
    with transaction.atomic():
        action.save(force_insert=True)
        webhooks = write_down(action)
        if not webhooks:
            raise NothingToDo
        _check_confirmation(action, shown)
    action_items = OperatorActionItem.objects.filter(action=action).order_by("webhook_id")
    operation_ids = action_items.values_list("webhook__operation_id", flat=True)[:OPERATIONS_LOGGED_MAX]
    log.info(
        "operator action created",
        action=action.pk,
        kind=action.kind,
        by=action.by_name,
        webhooks=webhooks,
        operation_ids=list(map(str, operation_ids)),
    )
    return action


def _check_confirmation(action: OperatorAction, shown: str | None) -> None:
    """Compare with what was shown, after the webhooks are written down: what fails later isn't among them.

    A resolution marks its conflicts here, all at once, so that carrying it out takes no later one.
    """
    if shown is None and action.kind != OperatorAction.Kind.RESOLVE:
        return
    would_move = _affected(
        OperatorAction.Kind(action.kind), Webhook.objects.filter(action_items__action=action)
    )
    if shown is not None and would_move and digest(would_move) != shown:
        raise StaleConfirmation
    if action.kind == OperatorAction.Kind.RESOLVE:
        _mark_resolved([conflict_id for _, conflict_id in would_move], action)


def _mark_resolved(conflict_ids: list[int], action: OperatorAction) -> None:
    """Lock by primary key and in its order first: over the index of `resolved_by` two acts would deadlock."""
    for start in range(0, len(conflict_ids), INSERT_BATCH_ROWS):
        chunk = ConflictingDelivery.objects.filter(id__in=conflict_ids[start : start + INSERT_BATCH_ROWS])
        locked = dict(chunk.select_for_update().order_by("id").values_list("id", "resolved_by"))
        still_open = [key for key, resolved_by in locked.items() if resolved_by is None]
        ConflictingDelivery.objects.filter(id__in=still_open).update(resolved_by=action)


def run_chunk(action_id: int, *, wait: bool = False) -> int:
    """The next chunk of the act; how many webhooks it reached. 0: there is no more to do, or somebody is at
    it, for whom it waits with `wait`.
    """
    with transaction.atomic():
        action = OperatorAction.objects.select_for_update(skip_locked=not wait).filter(pk=action_id).first()
        if action is None:
            return 0
        if action.kind in unrecognized.KINDS:
            return unrecognized.run_chunk(action)
        pending = OperatorActionItem.objects.filter(action=action, outcome=Outcome.PENDING).order_by("id")
        chunk = dict(pending.values_list("webhook_id", "id")[:CHUNK_WEBHOOKS])
        became = _RUNNERS[OperatorAction.Kind(action.kind)](action, chunk.keys())
        for outcome in set(became.values()):
            rows = [chunk[webhook_id] for webhook_id, its in became.items() if its == outcome]
            OperatorActionItem.objects.filter(id__in=rows, outcome=Outcome.PENDING).update(outcome=outcome)
        if action.kind == OperatorAction.Kind.REPLAY and Outcome.DONE in became.values():
            transaction.on_commit(doorbell.ring)
    return len(chunk)


def pending_ids() -> list[int]:
    """The acts that have webhooks to reach, oldest first."""
    pending = OperatorActionItem.objects.filter(outcome=Outcome.PENDING)
    about_webhooks = pending.order_by().values_list("action_id", flat=True).distinct()
    return sorted({*about_webhooks, *unrecognized.pending_ids()})


def _replay(action: OperatorAction, webhook_ids: Collection[int]) -> dict[int, str]:
    """With all their attempts, from the common queue; `last_error` stays until they are applied."""
    return _move(action, webhook_ids, status=Webhook.Status.RECEIVED, attempts=0, next_attempt_at=None)


def _dismiss(action: OperatorAction, webhook_ids: Collection[int]) -> dict[int, str]:
    return _move(action, webhook_ids, status=Webhook.Status.DISMISSED)


def _resolve(action: OperatorAction, webhook_ids: Collection[int]) -> dict[int, str]:
    """Return the outcomes. `begin` has marked the conflicts; the stored webhooks stay as they are."""
    marked = ConflictingDelivery.objects.filter(resolved_by=action, webhook_id__in=webhook_ids)
    done = dict.fromkeys(marked.values_list("webhook_id", flat=True), Outcome.DONE.value)
    return dict.fromkeys(webhook_ids, Outcome.RESOLVED.value) | done


_RUNNERS: dict[OperatorAction.Kind, Callable[[OperatorAction, Collection[int]], dict[int, str]]] = {
    OperatorAction.Kind.REPLAY: _replay,
    OperatorAction.Kind.DISMISS: _dismiss,
    OperatorAction.Kind.RESOLVE: _resolve,
}


def _move(action: OperatorAction, webhook_ids: Collection[int], **values: object) -> dict[int, str]:
    """Move those that are failed; what became of each, which for the others is the state that they are in.

    One that a later act has put back and that has failed again is left alone: that failure was not confirmed.
    The rows are locked first, by primary key and in its order, and then updated by it: over the index of the
    status two acts would deadlock.
    """
    locked = Webhook.objects.filter(id__in_literals=webhook_ids).select_for_update().order_by("id")
    states = dict(locked.values_list("id", "status"))
    failed = {webhook_id for webhook_id, status in states.items() if status == Webhook.Status.FAILED}
    later = OperatorActionItem.objects.filter(webhook__in=failed, action__gt=action, outcome=Outcome.DONE)
    failed -= set(later.values_list("webhook_id", flat=True))
    Webhook.objects.filter(id__in_literals=failed).update(**values)
    return dict.fromkeys(webhook_ids, Outcome.UNKNOWN) | states | dict.fromkeys(failed, Outcome.DONE)


@dataclass
class Progress:
    """How far an act has come, and what its webhooks are by now."""

    outcomes: Counter[str] = field(default_factory=Counter)  # webhooks by outcome
    by_now: Counter[str] = field(default_factory=Counter)  # of those that a replay put back, by status

    @property
    def webhooks(self) -> int:
        return self.outcomes.total()

    @property
    def reached(self) -> int:
        return self.webhooks - self.outcomes[Outcome.PENDING]

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do, and nothing that it put back is still to be applied."""
        return not self.outcomes[Outcome.PENDING] and not self.by_now[Webhook.Status.RECEIVED]


def progress(action: OperatorAction) -> Progress:
    """Counted from the rows, at this moment. A webhook may have been replayed by others since."""
    if action.kind in unrecognized.KINDS:
        deliveries = action.unrecognized_deliveries.values_list("outcome").annotate(Count("id")).order_by()
        return Progress(Counter(dict(deliveries)))
    # With all outcomes named, the index of outcome and act has it all.
    mine = OperatorActionItem.objects.filter(action=action, outcome__in=Outcome.values)
    outcomes = Counter(dict(mine.values_list("outcome").annotate(Count("id")).order_by()))
    by_now: Counter[str] = Counter()
    if action.kind == OperatorAction.Kind.REPLAY:
        done = mine.filter(outcome=Outcome.DONE)
        by_now.update(dict(done.values_list("webhook__status").annotate(Count("id")).order_by()))
    return Progress(outcomes, by_now)
