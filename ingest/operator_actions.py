"""Operator actions on webhooks: replay or dismiss failed ones, resolve conflicts, correct posted payments,
decide suspected duplicates.

Creating an action commits its rows: who, why, and one item per webhook. `run_chunk` then processes the items
in chunks, each in one transaction with its effects; the request, a worker or the sweeper may run it. So an
action survives the process that runs it, processes each webhook once, and its rows are the audit trail. A
webhook moves only if it is failed while its row is locked: of two concurrent actions on one webhook one wins,
and the other records the status it found. Actions on posted payments: ingest/correction_actions.py, on
unrecognized deliveries: ingest/unrecognized.py.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial

import structlog
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Count, F, Q, QuerySet, Value

from core.db import clock, transactions
from core.db.insert_select import insert_select
from ingest import action_handlers, correction_actions, doorbell, suspected_duplicates, unrecognized
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
from ledger.exceptions import MissingOrganizations
from ledger.posting import create_organizations

log = structlog.get_logger(__name__)

WEBHOOKS_MAX = 200_000  # per action
CHUNK_WEBHOOKS = 500  # per transaction
INSERT_BATCH_ROWS = 1000
OPERATIONS_LOGGED_MAX = 10  # per action; the audit trail has all of them
Kind = OperatorAction.Kind
_ON_CONFLICTS = {Kind.RESOLVE, Kind.REPLACE}  # these mark the open conflicts of their webhooks as resolved
Outcome = OperatorActionItem.Outcome


def eligible(kind: Kind, webhooks: QuerySet[Webhook]) -> QuerySet[Webhook]:
    """Return those of `webhooks` that an action of this kind would move now."""
    if kind in suspected_duplicates.KINDS:
        return suspected_duplicates.eligible(webhooks)
    if kind in correction_actions.KINDS:
        webhooks = correction_actions.eligible(kind, webhooks)
    if kind in _ON_CONFLICTS:
        # A list of keys, because MariaDB would scan all webhooks with a lookup in this table for each.
        open_conflicts = ConflictingDelivery.objects.filter(resolved_by=None).order_by()
        return webhooks.filter(id__in_literals=set(open_conflicts.values_list("webhook_id", flat=True)))
    return webhooks if kind in correction_actions.KINDS else webhooks.filter(status=Webhook.Status.FAILED)


def state_digest(kind: Kind, webhooks: QuerySet[Webhook]) -> str:
    """Return a digest of what the action would move now; empty if that is nothing.

    A confirmation page carries it, and creating the action compares it. It changes with each webhook that
    fails or is moved, with one that is replayed and fails again, for a resolution with each conflict, and for
    a correction with each correction of these payments.
    """
    return _digest(kind, _affected(kind, webhooks))


def _digest(kind: Kind, affected: list[tuple[int, int]]) -> str:
    is_correction = kind in correction_actions.KINDS
    return digest(
        [*affected, *(correction_actions.states({key for key, _ in affected}) if is_correction else ())]
    )


def _affected(kind: Kind, webhooks: QuerySet[Webhook]) -> list[tuple[int, int]]:
    """Return (webhook key, number of actions that moved it before) of at most WEBHOOKS_MAX webhooks.

    For a resolution or a replacement: (webhook key, conflict key) of each of their open conflicts.
    """
    if kind in _ON_CONFLICTS:
        keys = set(eligible(kind, webhooks).order_by("id").values_list("id", flat=True)[:WEBHOOKS_MAX])
        conflicts = ConflictingDelivery.objects.filter(resolved_by=None).order_by("webhook_id", "id")
        return [pair for pair in conflicts.values_list("webhook_id", "id") if pair[0] in keys]
    moved_before = Count("action_items", filter=Q(action_items__outcome=Outcome.DONE))
    movable = eligible(kind, Webhook.objects.filter(pk__in=webhooks.order_by().values("pk")))
    return list(movable.values_list("id").annotate(moved=moved_before).order_by("id")[:WEBHOOKS_MAX])


def create(
    kind: Kind,
    webhook_ids: Iterable[int],
    by: User,
    reason: str,
    by_name: str = "",
    confirmed: str | None = None,
) -> OperatorAction:
    """Insert the action and an item per webhook; nothing moves yet.

    `by_name` overrides the user name in the audit trail; `confirmed` is the state digest that the user
    confirmed. Raise ValueError without a reason, NothingToDo without webhooks, and StaleConfirmation if the
    action would now move other webhooks or conflicts than confirmed.
    """
    action = OperatorAction(kind=kind, by=by, by_name=by_name or by.get_username())
    return create_for_ids(action, webhook_ids, reason, confirmed)


def create_for_ids(
    action: OperatorAction, webhook_ids: Iterable[int], reason: str, confirmed: str | None = None
) -> OperatorAction:
    """Like `create`, with an action that is not saved yet."""
    ordered = sorted(set(webhook_ids))[:WEBHOOKS_MAX]

    def insert_items(action: OperatorAction) -> int:
        items = (OperatorActionItem(action=action, webhook_id=webhook_id) for webhook_id in ordered)
        return len(OperatorActionItem.objects.bulk_create(items, batch_size=INSERT_BATCH_ROWS))

    return _create(action, reason, insert_items, confirmed)


def create_for_queryset(
    kind: Kind, webhooks: QuerySet[Webhook], by: User, reason: str, confirmed: str | None = None
) -> OperatorAction:
    """Like `create`, for all eligible ones of `webhooks`, by one INSERT … SELECT."""
    source = eligible(kind, webhooks).order_by("id")[:WEBHOOKS_MAX]

    def insert_items(action: OperatorAction) -> int:
        pending = Value(Outcome.PENDING.value)
        return insert_select(
            OperatorActionItem, source, action=Value(action.pk), webhook=F("id"), outcome=pending
        )

    action = OperatorAction(kind=kind, by=by, by_name=by.get_username())
    return _create(action, reason, insert_items, confirmed)


def create_for_deliveries(
    kind: Kind,
    deliveries: QuerySet[UnrecognizedDelivery],
    by: User,
    reason: str,
    confirmed: str | None = None,
) -> OperatorAction:
    """Like `create_for_queryset`, for the open ones of `deliveries` that no other action has pending."""
    action = OperatorAction(kind=kind, by=by, by_name=by.get_username())
    return _create(action, reason, lambda created: unrecognized.claim(created, deliveries, confirmed), None)


def _create(
    action: OperatorAction,
    reason: str,
    insert_items: Callable[[OperatorAction], int],
    confirmed: str | None,
) -> OperatorAction:
    action.reason = reason.strip()[:ACTION_REASON_CHARS_MAX]
    if not action.reason:
        raise ValueError("an operator action needs a reason")
    if action.kind in correction_actions.KINDS:  # compared with the times of the ledger
        action.at = clock.database_now()
    with transaction.atomic():
        action.save(force_insert=True)
        webhooks = insert_items(action)
        if not webhooks:
            raise NothingToDo
        _check_confirmation(action, confirmed)
    items = OperatorActionItem.objects.filter(action=action).order_by("webhook_id")
    operation_ids = items.values_list("webhook__operation_id", flat=True)[:OPERATIONS_LOGGED_MAX]
    log.info(
        "operator action created",
        action=action.pk,
        kind=action.kind,
        by=action.by_name,
        webhooks=webhooks,
        operation_ids=list(map(str, operation_ids)),
    )
    return action


def _check_confirmation(action: OperatorAction, confirmed: str | None) -> None:
    """Compare the items with the confirmed state; they are inserted by now, so later failures stay out.

    A resolution marks its conflicts here, all at once, so that running it resolves no later one.
    """
    if confirmed is None and action.kind not in _ON_CONFLICTS:
        return
    affected = _affected(Kind(action.kind), Webhook.objects.filter(action_items__action=action))
    if confirmed is not None and affected and _digest(Kind(action.kind), affected) != confirmed:
        raise StaleConfirmation
    if action.kind in _ON_CONFLICTS:
        _mark_resolved([conflict_id for _, conflict_id in affected], action)


def _mark_resolved(conflict_ids: list[int], action: OperatorAction) -> None:
    """Lock by primary key in its order first: over the index of `resolved_by` two actions would deadlock."""
    for start in range(0, len(conflict_ids), INSERT_BATCH_ROWS):
        chunk = ConflictingDelivery.objects.filter(id__in=conflict_ids[start : start + INSERT_BATCH_ROWS])
        locked = dict(chunk.select_for_update().order_by("id").values_list("id", "resolved_by"))
        still_open = [key for key, resolved_by in locked.items() if resolved_by is None]
        ConflictingDelivery.objects.filter(id__in=still_open).update(resolved_by=action)


def run_chunk(action_id: int, *, wait: bool = False) -> int:
    """Process the next chunk of the action's items; return their number.

    Return 0 if none is pending, or if another process has the action locked; with `wait`, wait for it.
    """
    while True:
        try:
            return _run_chunk(action_id, wait=wait)
        except MissingOrganizations as exc:  # of a correction
            transactions.run_with_retries(partial(create_organizations, exc.inns))


def _run_chunk(action_id: int, *, wait: bool) -> int:
    with transaction.atomic():
        action = OperatorAction.objects.select_for_update(skip_locked=not wait).filter(pk=action_id).first()
        if action is None:
            return 0
        if handler := action_handlers.handler_of(action):
            return handler.run_chunk(action)
        pending = OperatorActionItem.objects.filter(action=action, outcome=Outcome.PENDING).order_by("id")
        corrects = action.kind in {*correction_actions.KINDS, Kind.CONFIRM}
        size = correction_actions.CHUNK_WEBHOOKS if corrects else CHUNK_WEBHOOKS
        chunk = dict(pending.values_list("webhook_id", "id")[:size])
        outcomes = _RUNNERS[Kind(action.kind)](action, chunk.keys())
        _mark({chunk[webhook_id]: outcome for webhook_id, outcome in outcomes.items()})
        if action.kind == Kind.REPLAY and Outcome.DONE in outcomes.values():
            transaction.on_commit(doorbell.ring)
    return len(chunk)


def _mark(outcomes: Mapping[int, str]) -> None:
    """Record the outcomes of items by their keys."""
    for outcome in set(outcomes.values()):
        item_ids = [item_id for item_id, each in outcomes.items() if each == outcome]
        items = OperatorActionItem.objects.filter(id__in=item_ids, outcome=Outcome.PENDING)
        items.update(outcome=outcome)


def pending_ids() -> list[int]:
    """Return the primary keys of the actions with pending items, oldest first."""
    pending = OperatorActionItem.objects.filter(outcome=Outcome.PENDING)
    on_webhooks = pending.order_by().values_list("action_id", flat=True).distinct()
    return sorted({*on_webhooks, *action_handlers.pending_ids()})


def run_pending(seconds: float) -> bool:
    """Run pending actions for about `seconds`; return whether some may be left.

    These are large ones, and those whose request died. An action that fails, for example on a locked webhook,
    is tried once and does not delay the others; the next sweep retries it.
    """
    until = time.monotonic() + seconds
    for action_id in pending_ids():
        try:
            while transactions.run_with_retries(partial(run_chunk, action_id), tries_max=1):
                if time.monotonic() > until:
                    return True
        except Exception as exc:  # noqa: BLE001 the other actions must run
            log.warning("operator action failed; the next sweep retries", action=action_id, error=repr(exc))
    return False


def _replay(action: OperatorAction, webhook_ids: Collection[int]) -> dict[int, str]:
    """Return the webhooks to the queue with all attempts; `last_error` stays until they are applied."""
    return _move(action, webhook_ids, status=Webhook.Status.RECEIVED, attempts=0, next_attempt_at=None)


def _dismiss(action: OperatorAction, webhook_ids: Collection[int]) -> dict[int, str]:
    return _move(action, webhook_ids, status=Webhook.Status.DISMISSED)


def _resolve(action: OperatorAction, webhook_ids: Collection[int]) -> dict[int, str]:
    """Return the outcomes. Creating the action marked the conflicts; the stored webhooks do not change."""
    marked = ConflictingDelivery.objects.filter(resolved_by=action, webhook_id__in=webhook_ids)
    done = dict.fromkeys(marked.values_list("webhook_id", flat=True), Outcome.DONE.value)
    return dict.fromkeys(webhook_ids, Outcome.RESOLVED.value) | done


_RUNNERS: dict[Kind, Callable[[OperatorAction, Collection[int]], dict[int, str]]] = {
    Kind.REPLAY: _replay,
    Kind.DISMISS: _dismiss,
    Kind.RESOLVE: _resolve,
    **dict.fromkeys(correction_actions.KINDS, correction_actions.run),
    **dict.fromkeys(suspected_duplicates.KINDS, suspected_duplicates.run),
}


def _move(action: OperatorAction, webhook_ids: Collection[int], **values: object) -> dict[int, str]:
    """Update the failed ones of the webhooks; return the outcome of each, for the others their status.

    Skip a webhook that a later action replayed and that failed again: that failure was not confirmed. Lock
    the rows by primary key in its order, then update by it: over the index of the status two actions would
    deadlock.
    """
    locked = Webhook.objects.filter(id__in_literals=webhook_ids).select_for_update().order_by("id")
    statuses = dict(locked.values_list("id", "status"))
    failed = {webhook_id for webhook_id, status in statuses.items() if status == Webhook.Status.FAILED}
    later = OperatorActionItem.objects.filter(webhook__in=failed, action__gt=action, outcome=Outcome.DONE)
    failed -= set(later.values_list("webhook_id", flat=True))
    Webhook.objects.filter(id__in_literals=failed).update(**values)
    return dict.fromkeys(webhook_ids, Outcome.UNKNOWN) | statuses | dict.fromkeys(failed, Outcome.DONE)
