"""What persons do about unrecognized deliveries: have them processed again, or dismiss them.

An act claims them and is carried out a chunk at a time, as acts about webhooks are (ingest/acts.py). To
process one again is what the endpoint does with it, without its proof: that was verified when the delivery
came, and the keys may have been rotated since. It is as idempotent as a repeated delivery.
"""

import structlog
from django.db import transaction
from django.db.models import Q, QuerySet

from ingest import doorbell, inbox
from ingest.banks.telling import Credit, Meaning, Unrecognized
from ingest.confirming import digest
from ingest.doors import DOORS_BY_NAME
from ingest.exceptions import ChangedMeanwhile, InvalidDelivery, TurnedAway
from ingest.inbox import Stored
from ingest.models import REASON_CHARS_MAX, Act, BankOperation, UnrecognizedDelivery, Webhook
from ingest.signing import claimed_payload
from ledger import among  # noqa: F401 registers the look-up id__among

log = structlog.get_logger(__name__)

KINDS = (Act.Kind.PROCESS, Act.Kind.DISCARD)
CHUNK_DELIVERIES = 100  # in one transaction
Outcome = UnrecognizedDelivery.Outcome
_CLAIMABLE = Q(outcome=Outcome.UNTRIED, closed_in=None) | Q(outcome=Outcome.TRIED)
_PENDING = Q(outcome=Outcome.UNTRIED, closed_in__isnull=False)
_STORED = {
    Stored.NEW: Outcome.STORED,
    Stored.REPEATED: Outcome.REPEATED,
    Stored.CONFLICTING: Outcome.CONFLICTING,
}


def claimable(deliveries: QuerySet[UnrecognizedDelivery]) -> QuerySet[UnrecognizedDelivery]:
    """Those that are open, and that no other act has still to reach."""
    return deliveries.filter(_CLAIMABLE)


def fingerprint(deliveries: QuerySet[UnrecognizedDelivery]) -> str:
    """Return a digest of what an act would claim of `deliveries` at this moment; empty if that is nothing.

    A confirmation page carries it. It changes with each delivery that arrives, is closed, or is processed
    again and stays open.
    """
    return digest(_claims(claimable(deliveries)))


def _claims(deliveries: QuerySet[UnrecognizedDelivery]) -> list[tuple[int, int | None]]:
    return list(deliveries.order_by("id").values_list("id", "closed_in_id"))


def claim(act: Act, deliveries: QuerySet[UnrecognizedDelivery], shown: str | None = None) -> int:
    """Have the act reach what is claimable of `deliveries`; return how many these are.

    `shown` is the fingerprint that was confirmed. Raises ChangedMeanwhile if they are others by now.
    """
    claims = _claims(claimable(deliveries).select_for_update())
    if shown is not None and claims and digest(claims) != shown:
        raise ChangedMeanwhile
    claimed = UnrecognizedDelivery.objects.filter(id__among={delivery_id for delivery_id, _ in claims})
    return claimed.update(closed_in=act, outcome=Outcome.UNTRIED)


def unfinished() -> set[int]:
    """The acts that have deliveries to reach."""
    pending = UnrecognizedDelivery.objects.filter(_PENDING).order_by()
    return set(pending.values_list("closed_in_id", flat=True).distinct())


def carry_out(act: Act) -> int:
    """Reach the next chunk of deliveries; return how many. The caller's transaction has locked the act."""
    pending = UnrecognizedDelivery.objects.filter(_PENDING, closed_in=act).order_by("id")
    chunk = list(pending[:CHUNK_DELIVERIES])
    for delivery in chunk:
        if act.kind == Act.Kind.PROCESS:
            _process(delivery)
        else:
            delivery.outcome = Outcome.DISMISSED
        delivery.save(update_fields=["outcome", "reason", "webhook"])
    if any(delivery.outcome == Outcome.STORED for delivery in chunk):
        transaction.on_commit(doorbell.ring)
    return len(chunk)


def _process(delivery: UnrecognizedDelivery) -> None:
    meaning = _read(delivery)
    if isinstance(meaning, Credit):
        stored = inbox.store(
            meaning.terms, bytes(delivery.body), delivery.source, meaning.bank_id, delivery.source_address
        )
        delivery.outcome, delivery.webhook = _STORED[stored], _webhook_of(meaning)
    else:
        delivery.outcome = Outcome.TRIED if isinstance(meaning, Unrecognized) else Outcome.IGNORED
        delivery.reason = meaning.reason[:REASON_CHARS_MAX]


def _read(delivery: UnrecognizedDelivery) -> Meaning:
    """What the adapter makes of the payload today. Nothing that it raises may lose the delivery."""
    door = DOORS_BY_NAME.get(delivery.source)
    if door is None:
        return Unrecognized("there is no adapter of this source any more")
    try:
        return door.read(claimed_payload(bytes(delivery.body)))
    except TurnedAway as exc:
        return Unrecognized(f"not meant for us by today's settings: {exc}")
    except InvalidDelivery as exc:
        return Unrecognized(str(exc))
    except Exception as exc:  # the other deliveries must not wait for the adapter's repair
        log.exception("an adapter failed", door=delivery.source)
        return Unrecognized(f"the adapter failed: {type(exc).__name__}")


def _webhook_of(credit: Credit) -> Webhook:
    """The webhook that it is stored as, or beside."""
    operation_id = credit.terms.operation_id
    if credit.bank_id:
        operation_id = BankOperation.objects.get(alias=credit.bank_id.alias).operation_id
    return Webhook.objects.defer("body").get(operation_id=operation_id)
