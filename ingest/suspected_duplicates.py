"""Pairs of webhooks that look like one payment, and the operator actions that decide them.

* clear: they are two payments. A held webhook returns to the queue.
* confirm: the later one is a duplicate. Its payment is reversed; a held webhook is dismissed.
"""

from collections.abc import Collection

from django.db import IntegrityError, transaction
from django.db.models import QuerySet

from ingest import doorbell
from ingest.banks.events import CreditEvent
from ingest.banks.registry import read_stored
from ingest.models import OperatorAction, OperatorActionItem, SuspectedDuplicate, Webhook
from ingest.payment_fingerprint import identity
from ledger import corrections
from ledger.exceptions import CorrectionRefused

Kind = OperatorAction.Kind
Outcome = OperatorActionItem.Outcome
State = SuspectedDuplicate.State
KINDS = frozenset({Kind.CLEAR, Kind.CONFIRM})


def look_alike(one: Webhook, other: Webhook) -> bool:
    """Return whether both are one payment by all that is known. An account counts if both name it."""
    if identity(one.terms) != identity(other.terms):
        return False
    pairs = zip(accounts(one), accounts(other), strict=True)
    return all(first == second for first, second in pairs if first and second)


def accounts(webhook: Webhook) -> tuple[str, str]:
    """Return the payer's account and ours, each empty if the stored body does not name it."""
    if not webhook.body:
        return "", ""
    try:
        event = read_stored(webhook.source, webhook.body)
    except Exception:  # noqa: BLE001 a bug of an adapter must not prevent posting
        return "", ""
    return event.accounts if isinstance(event, CreditEvent) else ("", "")


def eligible(webhooks: QuerySet[Webhook]) -> QuerySet[Webhook]:
    """Return those of `webhooks` that are the later one of an open pair."""
    # A list of keys, because MariaDB would scan all webhooks with a lookup in this table for each.
    undecided = SuspectedDuplicate.objects.filter(state=State.OPEN).order_by()
    return webhooks.filter(id__in_literals=set(undecided.values_list("webhook_id", flat=True)))


def run(action: OperatorAction, webhook_ids: Collection[int]) -> dict[int, str]:
    """Decide the pairs of these webhooks; return the outcome of each."""
    decide = clear if action.kind == Kind.CLEAR else _confirm
    try:
        decided = decide(webhook_ids, action)
    except (CorrectionRefused, IntegrityError):  # the latter if a balance would overflow on SQLite
        return dict.fromkeys(webhook_ids, Outcome.REFUSED)
    return {key: Outcome.DONE if key in decided else Outcome.DECIDED for key in webhook_ids}


def clear(webhook_ids: Collection[int], action: OperatorAction | None = None) -> set[int]:
    """Record that these webhooks are payments of their own, in one transaction; return those still open.

    Held ones return to the queue. `action` is None if a bank statement decides.
    """
    with transaction.atomic():
        undecided = _lock_open(webhook_ids)
        _decide(undecided, State.CLEARED, action)
        held = Webhook.objects.filter(id__in_literals=undecided).select_for_update().order_by("id")
        released = {key for key, status in held.values_list("id", "status") if status == Webhook.Status.HELD}
        if released:
            queued = {"status": Webhook.Status.RECEIVED, "attempts": 0, "next_attempt_at": None}
            Webhook.objects.filter(id__in_literals=released).update(**queued)
            transaction.on_commit(doorbell.ring)
    return undecided


def _confirm(webhook_ids: Collection[int], action: OperatorAction) -> set[int]:
    """Raise CorrectionRefused and IntegrityError as `corrections.correct` does."""
    with transaction.atomic():
        undecided = _lock_open(webhook_ids)
        for webhook in Webhook.objects.filter(id__in_literals=undecided).defer("body").order_by("id"):
            held = Webhook.objects.filter(pk=webhook.pk, status=Webhook.Status.HELD)
            if not held.update(status=Webhook.Status.DISMISSED):
                _take_back(webhook)
        _decide(undecided, State.CONFIRMED, action)
    return undecided


def _take_back(webhook: Webhook) -> None:
    """Reverse the operation's payment, unless an operator has reversed it before."""
    payment = corrections.last_payment(webhook.operation_id)
    if not corrections.is_reversed(payment):
        corrections.correct(webhook.operation_id, corrections.reversal)


def _lock_open(webhook_ids: Collection[int]) -> set[int]:
    """Lock by primary key in its order: over the index of the state two actions would deadlock."""
    pairs = SuspectedDuplicate.objects.filter(pk__in=webhook_ids).select_for_update().order_by("pk")
    return {key for key, state in pairs.values_list("pk", "state") if state == State.OPEN}


def _decide(webhook_ids: Collection[int], state: State, action: OperatorAction | None) -> None:
    SuspectedDuplicate.objects.filter(pk__in=webhook_ids).update(state=state, decided_by=action)
