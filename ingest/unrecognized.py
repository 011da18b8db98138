"""Operator actions on unrecognized deliveries: process them again, or dismiss them.

An action claims deliveries and runs in chunks, like those on webhooks (ingest/operator_actions.py).
Processing repeats what the endpoint does, without authentication: that succeeded when the delivery arrived,
and the keys may have been rotated since. It is as idempotent as a duplicate delivery.
"""

from collections import Counter

import structlog
from django.db import transaction
from django.db.models import Count, Q, QuerySet

from ingest import arrivals, doorbell, inbox
from ingest.action_handlers import ActionHandler, register
from ingest.banks.events import BankEvent, CreditEvent, UnrecognizedEvent
from ingest.banks.registry import ENDPOINTS_BY_NAME, read_stored
from ingest.confirmation import digest
from ingest.exceptions import InvalidDelivery, NotAuthorized, StaleConfirmation
from ingest.inbox import StoreResult
from ingest.models import REASON_CHARS_MAX, OperationAlias, OperatorAction, UnrecognizedDelivery, Webhook

log = structlog.get_logger(__name__)

KINDS = (OperatorAction.Kind.PROCESS, OperatorAction.Kind.DISCARD)
CHUNK_DELIVERIES = 100  # per transaction
Outcome = UnrecognizedDelivery.Outcome
_CLAIMABLE = Q(outcome=Outcome.UNTRIED, last_action=None) | Q(outcome=Outcome.TRIED)
_PENDING = Q(outcome=Outcome.UNTRIED, last_action__isnull=False)
_OUTCOMES = {
    StoreResult.CREATED: Outcome.STORED,
    StoreResult.DUPLICATE: Outcome.DUPLICATE,
    StoreResult.CONFLICT: Outcome.CONFLICT,
}


def claimable(deliveries: QuerySet[UnrecognizedDelivery]) -> QuerySet[UnrecognizedDelivery]:
    """Return the open ones that no action has pending."""
    return deliveries.filter(_CLAIMABLE)


def state_digest(deliveries: QuerySet[UnrecognizedDelivery]) -> str:
    """Return a digest of what an action would claim now; empty if that is nothing.

    It changes with each delivery that arrives, is closed, or is processed again and stays open.
    """
    return digest(_claim_state(claimable(deliveries)))


def _claim_state(deliveries: QuerySet[UnrecognizedDelivery]) -> list[tuple[int, int | None]]:
    return list(deliveries.order_by("id").values_list("id", "last_action_id"))


def claim(
    action: OperatorAction, deliveries: QuerySet[UnrecognizedDelivery], confirmed: str | None = None
) -> int:
    """Claim the claimable ones of `deliveries` for the action; return their number.

    Raise StaleConfirmation if their state digest is no longer `confirmed`.
    """
    state = _claim_state(claimable(deliveries).select_for_update())
    if confirmed is not None and state and digest(state) != confirmed:
        raise StaleConfirmation
    claimed = UnrecognizedDelivery.objects.filter(id__in_literals={delivery_id for delivery_id, _ in state})
    return claimed.update(last_action=action, outcome=Outcome.UNTRIED)


def pending_ids() -> set[int]:
    """Return the primary keys of the actions with pending deliveries."""
    pending = UnrecognizedDelivery.objects.filter(_PENDING).order_by()
    return set(pending.values_list("last_action_id", flat=True).distinct())


def outcomes(action: OperatorAction) -> Counter[str]:
    """Count the action's deliveries by outcome."""
    deliveries = action.unrecognized_deliveries.values_list("outcome").annotate(Count("id")).order_by()
    return Counter(dict(deliveries))


def run_chunk(action: OperatorAction) -> int:
    """Process the next chunk of deliveries; return their number. The caller has locked the action."""
    pending = UnrecognizedDelivery.objects.filter(_PENDING, last_action=action).order_by("id")
    chunk = list(pending[:CHUNK_DELIVERIES])
    for delivery in chunk:
        if action.kind == OperatorAction.Kind.PROCESS:
            _process(delivery)
        else:
            delivery.outcome = Outcome.DISMISSED
        delivery.save(update_fields=["outcome", "reason", "webhook"])
    if any(delivery.outcome == Outcome.STORED for delivery in chunk):
        transaction.on_commit(doorbell.ring)
    return len(chunk)


def _process(delivery: UnrecognizedDelivery) -> None:
    event = _read(delivery)
    if isinstance(event, CreditEvent):
        received = inbox.Delivery(bytes(delivery.body), delivery.source, delivery.client_ip)
        result = arrivals.store_credit(event, received)
        delivery.outcome, delivery.webhook = _OUTCOMES[result], _webhook_of(event)
    else:
        delivery.outcome = Outcome.TRIED if isinstance(event, UnrecognizedEvent) else Outcome.IGNORED
        delivery.reason = event.reason[:REASON_CHARS_MAX]


def _read(delivery: UnrecognizedDelivery) -> BankEvent:
    """Parse the payload with today's adapter. No exception of the adapter may lose the delivery."""
    if delivery.source not in ENDPOINTS_BY_NAME:
        return UnrecognizedEvent("no adapter of this source exists any more")
    try:
        return read_stored(delivery.source, delivery.body)
    except NotAuthorized as exc:
        return UnrecognizedEvent(f"another customer's by today's settings: {exc}")
    except InvalidDelivery as exc:
        return UnrecognizedEvent(str(exc))
    except Exception as exc:  # the other deliveries must not wait until the adapter is fixed
        log.exception("bank adapter failed", endpoint=delivery.source)
        return UnrecognizedEvent(f"the adapter failed: {type(exc).__name__}")


def _webhook_of(event: CreditEvent) -> Webhook:
    """Return the webhook the event is stored as, or whose duplicate or conflict it is."""
    operation_id = event.terms.operation_id
    if event.bank_reference:
        operation_id = OperationAlias.objects.get(alias=event.bank_reference.alias).operation_id
    return Webhook.objects.defer("body").get(operation_id=operation_id)


register(KINDS, ActionHandler(run_chunk, pending_ids, outcomes))
