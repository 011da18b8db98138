"""Operator actions on lines of bank statements and on webhooks that no line explains.

An action's items are processed in chunks like those on webhooks (ingest/operator_actions.py). Each item is
checked again under the locks of all own accounts, after a matching if anything is undecided, so that an item
whose state changed since it was chosen is refused.

* post: post a line without a webhook, to suspense if its payer is not identified (statements/line_posting.py)
* match: confirm a suggestion; unmatch: undo a match
* take_back: reverse the payment of a duplicate, of a webhook on no statement, or of a line the bank reversed
* by_line: reverse a payment and post it by the terms of its line
* exclude: don't post a line; keep: leave a difference as it is; reopen: undo one of these
* accept: take an unproven statement for complete
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import structlog
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Count, Q, QuerySet

from core.db import clock
from ingest.action_handlers import ActionHandler, register
from ingest.confirmation import digest
from ingest.exceptions import NothingToDo, StaleConfirmation
from ingest.models import ACTION_REASON_CHARS_MAX, OperatorAction
from statements import line_posting, settling
from statements.buckets import LINE_BUCKETS, WEBHOOK_BUCKETS
from statements.matching import match, undecided
from statements.models import ActionItem, BankStatement, Bucket, Match, MatchKey, OwnAccount, StatementLine

log = structlog.get_logger(__name__)

ITEMS_MAX = 200_000  # per action
CHUNK_ITEMS = 100  # per transaction
INSERT_BATCH_ROWS = 1000
Kind = OperatorAction.Kind
Outcome = ActionItem.Outcome
Refusal = ActionItem.Refusal
Rows = QuerySet[StatementLine] | QuerySet[MatchKey]

# The buckets whose lines or webhooks an action of each kind settles.
BUCKETS: Mapping[Kind, frozenset[Bucket]] = {
    Kind.POST: frozenset({Bucket.MISSING_WEBHOOK, Bucket.UNIDENTIFIED}),
    Kind.MATCH: frozenset({Bucket.SUGGESTED}),
    Kind.UNMATCH: frozenset({Bucket.MATCHED, Bucket.UNPOSTED, Bucket.KEPT}),
    Kind.TAKE_BACK: frozenset({Bucket.DUPLICATE, Bucket.NOT_ON_STATEMENT, Bucket.REVERSED_BY_BANK}),
    Kind.BY_LINE: frozenset({Bucket.AMOUNT_MISMATCH, Bucket.PAYER_MISMATCH}),
    Kind.EXCLUDE: frozenset({Bucket.MISSING_WEBHOOK, Bucket.UNIDENTIFIED}),
    Kind.KEEP: frozenset(
        {Bucket.AMOUNT_MISMATCH, Bucket.PAYER_MISMATCH, Bucket.DUPLICATE, Bucket.NOT_ON_STATEMENT}
    ),
    Kind.REOPEN: frozenset(
        {
            *(Bucket.EXCLUDED, Bucket.KEPT_WEBHOOK),
            *(Bucket.MISSING_WEBHOOK, Bucket.UNIDENTIFIED),  # of a separated line
        }
    ),
}
# The unposted are replayed by ingest.operator_actions, Kind.REPLAY, with `unposted_webhooks(lines)`.
KINDS = frozenset({*BUCKETS, Kind.ACCEPT})
# Of these an item is one transaction: both its organizations are locked in order, and no other ones before.
_CORRECTIONS = frozenset({Kind.TAKE_BACK, Kind.BY_LINE})


def eligible(kind: Kind, rows: Rows) -> Rows:
    """Return those of `rows`, lines or keys of webhooks, that an action of this kind may settle now."""
    is_of_lines = rows.model is StatementLine
    of_kind = BUCKETS[kind].intersection(LINE_BUCKETS if is_of_lines else WEBHOOK_BUCKETS)
    found = rows.filter(bucket__in=of_kind)
    if kind == Kind.REOPEN:
        return found.filter(_DECIDED[found.model])
    return found.filter(_UNDOABLE) if kind == Kind.UNMATCH and is_of_lines else found


_UNDOABLE = Q(matches__live=True) & Q(matches__rank__gt=Match.Rank.POSTED)  # that is undone by a reversal
_DECIDED = {StatementLine: Q(decision__isnull=False), MatchKey: Q(webhook__decision__isnull=False)}
_STATE = {
    StatementLine: ("pk", "bucket", "proposal__webhook", "proposal__webhook__match_key__payment_id"),
    MatchKey: ("pk", "bucket", "payment_id"),
}


def state_digest(kind: Kind, rows: Rows) -> str:
    """Return a digest of what the action would settle now; empty if that is nothing."""
    return digest(_state(kind, rows))


def _state(kind: Kind, rows: Rows) -> list[tuple[Any, ...]]:
    found = eligible(kind, rows).order_by("pk")
    return list(found.values_list(*_STATE[found.model])[:ITEMS_MAX])


def create(kind: Kind, rows: Rows, by: User, reason: str, confirmed: str | None = None) -> OperatorAction:
    """Insert an action on the eligible ones of `rows`; nothing is settled yet.

    `rows` is, for example, a whole bucket: `buckets.lines(scope, bucket)` or `buckets.webhooks(…)`.
    `confirmed` is the state digest that the user confirmed. Raise ValueError without a reason, NothingToDo
    without rows, and StaleConfirmation if the action would now settle something else than confirmed.
    `operator_actions.run_chunk` runs it, and `action_progress.progress` says how far it is.
    """
    with transaction.atomic():
        state = _state(kind, rows)
        if not state:
            raise NothingToDo
        if confirmed is not None and digest(state) != confirmed:
            raise StaleConfirmation
        target = "line_id" if rows.model is StatementLine else "webhook_id"
        return _insert(kind, by, reason, [{target: key} for key, *_ in state])


def accept(statement: BankStatement, by: User, reason: str) -> OperatorAction:
    """Insert an action that accepts an unproven statement.

    Raise ValueError without a reason, and NothingToDo if it is proven or accepted.
    """
    if not is_acceptable(statement):
        raise NothingToDo
    return _insert(Kind.ACCEPT, by, reason, [{"statement_id": statement.pk}])


def is_acceptable(statement: BankStatement) -> bool:
    return statement.verdict != BankStatement.Verdict.OK and not statement.accepted_by_id


def _insert(kind: Kind, by: User, reason: str, items: list[dict[str, int]]) -> OperatorAction:
    action = OperatorAction(kind=kind, by=by, by_name=by.get_username(), at=clock.database_now())
    action.reason = reason.strip()[:ACTION_REASON_CHARS_MAX]
    if not action.reason:
        raise ValueError("an operator action needs a reason")
    with transaction.atomic():
        action.save(force_insert=True)
        rows = (ActionItem(action=action, **item) for item in items)
        ActionItem.objects.bulk_create(rows, batch_size=INSERT_BATCH_ROWS)
    log.info("operator action created", action=action.pk, kind=kind, by=action.by_name, items=len(items))
    return action


def pending_ids() -> Iterable[int]:
    """Return the primary keys of the actions with pending items."""
    pending = ActionItem.objects.filter(outcome=Outcome.PENDING).order_by()
    return pending.values_list("action_id", flat=True).distinct()


def outcomes(action: OperatorAction) -> Counter[str]:
    """Count the action's items by outcome."""
    items = ActionItem.objects.filter(action=action, outcome__in=Outcome.values)
    return Counter(dict(items.values_list("outcome").annotate(Count("pk")).order_by()))


def run_chunk(action: OperatorAction) -> int:
    """Process the next chunk of items; return their number. The caller has locked the action."""
    pending = ActionItem.objects.filter(action=action, outcome=Outcome.PENDING).order_by("pk")
    size = 1 if action.kind in _CORRECTIONS else CHUNK_ITEMS
    items = list(pending[:size])
    if not items:
        return 0
    list(OwnAccount.objects.select_for_update().order_by("pk"))
    is_first = not ActionItem.objects.filter(action=action).exclude(outcome=Outcome.PENDING).exists()
    if is_first or undecided().exists():
        match()
    refusals = _RUNNERS[Kind(action.kind)](action, items)
    for item in items:
        item.refusal = refusals.get(item.pk, Refusal.NONE)
        item.outcome = Outcome.REFUSED if item.refusal else Outcome.DONE
    ActionItem.objects.bulk_update(items, ["outcome", "refusal"])
    if not pending.exists():
        # Outside of this transaction, which may have organizations locked.
        transaction.on_commit(match, robust=True)
    return len(items)


_RUNNERS: Mapping[Kind, Callable[[OperatorAction, list[ActionItem]], Mapping[int, Refusal]]] = {
    Kind.POST: line_posting.run,
    Kind.MATCH: settling.match_suggestions,
    Kind.UNMATCH: settling.unmatch,
    Kind.TAKE_BACK: settling.take_back,
    Kind.BY_LINE: settling.replace_by_line,
    Kind.EXCLUDE: settling.exclude,
    Kind.KEEP: settling.keep,
    Kind.REOPEN: settling.reopen,
    Kind.ACCEPT: settling.accept,
}
register(KINDS, ActionHandler(run_chunk, pending_ids, outcomes))
