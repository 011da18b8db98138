"""What persons do about unrecognized deliveries: have them processed again, or dismiss them.

An act claims them and is carried out a chunk at a time, as acts about webhooks are (ingest/operator_actions.py). To
process one again is what the endpoint does with it, without its proof: that was verified when the delivery
came, and the keys may have been rotated since. It is as idempotent as a repeated delivery.
"""

import structlog
from django.db import transaction
from django.db.models import Q, QuerySet

from core.db import lookups  # noqa: F401 registers the look-up id__in_literals
from ingest import doorbell, inbox
from ingest.banks.events import BankEvent, CreditEvent, UnrecognizedEvent
from ingest.banks.registry import ENDPOINTS_BY_NAME
from ingest.confirmation import digest
from ingest.exceptions import InvalidDelivery, NotAuthorized, StaleConfirmation
from ingest.inbox import StoreResult
from ingest.models import REASON_CHARS_MAX, OperationAlias, OperatorAction, UnrecognizedDelivery, Webhook
from ingest.signatures import unverified_payload

log = structlog.get_logger(__name__)

KINDS = (OperatorAction.Kind.PROCESS, OperatorAction.Kind.DISCARD)
CHUNK_DELIVERIES = 100  # in one transaction
Outcome = UnrecognizedDelivery.Outcome
_CLAIMABLE = Q(outcome=Outcome.UNTRIED, last_action=None) | Q(outcome=Outcome.TRIED)
_PENDING = Q(outcome=Outcome.UNTRIED, last_action__isnull=False)
_STORED = {
    StoreResult.CREATED: Outcome.STORED,
    StoreResult.DUPLICATE: Outcome.DUPLICATE,
    StoreResult.CONFLICT: Outcome.CONFLICT,
}


def claimable(deliveries: QuerySet[UnrecognizedDelivery]) -> QuerySet[UnrecognizedDelivery]:
    """Those that are open, and that no other act has still to reach."""
    return deliveries.filter(_CLAIMABLE)


def state_digest(deliveries: QuerySet[UnrecognizedDelivery]) -> str:
    """Return a digest of what an act would claim of `deliveries` at this moment; empty if that is nothing.

    A confirmation page carries it. It changes with each delivery that arrives, is closed, or is processed
    again and stays open.
    """
    return digest(_claim_state(claimable(deliveries)))


def _claim_state(deliveries: QuerySet[UnrecognizedDelivery]) -> list[tuple[int, int | None]]:
    return list(deliveries.order_by("id").values_list("id", "last_action_id"))


def claim(
    action: OperatorAction, deliveries: QuerySet[UnrecognizedDelivery], shown: str | None = None
) -> int:
    """Have the act reach what is claimable of `deliveries`; return how many these are.

    `shown` is the fingerprint that was confirmed. Raises StaleConfirmation if they are others by now.
    """
    claims = _claim_state(claimable(deliveries).select_for_update())
    if shown is not None and claims and digest(claims) != shown:
        raise StaleConfirmation
    claimed = UnrecognizedDelivery.objects.filter(id__in_literals={delivery_id for delivery_id, _ in claims})
    return claimed.update(last_action=action, outcome=Outcome.UNTRIED)


def pending_ids() -> set[int]:
    """The acts that have deliveries to reach."""
    pending = UnrecognizedDelivery.objects.filter(_PENDING).order_by()
    return set(pending.values_list("last_action_id", flat=True).distinct())


def run_chunk(action: OperatorAction) -> int:
    """Reach the next chunk of deliveries; return how many. The caller's transaction has locked the act."""
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
    meaning = _read(delivery)
    if isinstance(meaning, CreditEvent):
        received = inbox.Delivery(bytes(delivery.body), delivery.source, delivery.client_ip)
        stored = inbox.store(meaning.terms, received, meaning.bank_reference)
        delivery.outcome, delivery.webhook = _STORED[stored], _webhook_of(meaning)
    else:
        delivery.outcome = Outcome.TRIED if isinstance(meaning, UnrecognizedEvent) else Outcome.IGNORED
        delivery.reason = meaning.reason[:REASON_CHARS_MAX]


def _read(delivery: UnrecognizedDelivery) -> BankEvent:
    """What the adapter makes of the payload today. Nothing that it raises may lose the delivery."""
    endpoint = ENDPOINTS_BY_NAME.get(delivery.source)
    if endpoint is None:
        return UnrecognizedEvent("there is no adapter of this source any more")
    try:
        return endpoint.read(unverified_payload(bytes(delivery.body)))
    except NotAuthorized as exc:
        return UnrecognizedEvent(f"not meant for us by today's settings: {exc}")
    except InvalidDelivery as exc:
        return UnrecognizedEvent(str(exc))
    except Exception as exc:  # the other deliveries must not wait for the adapter's repair
        log.exception("bank adapter failed", endpoint=delivery.source)
        return UnrecognizedEvent(f"the adapter failed: {type(exc).__name__}")


def _webhook_of(credit: CreditEvent) -> Webhook:
    """The webhook that it is stored as, or beside."""
    operation_id = credit.terms.operation_id
    if credit.bank_reference:
        operation_id = OperationAlias.objects.get(alias=credit.bank_reference.alias).operation_id
    return Webhook.objects.defer("body").get(operation_id=operation_id)
