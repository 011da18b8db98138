"""Durable storage of one delivery by its meaning. When a function here returns, the row is committed."""

from ingest import inbox, version_storage
from ingest.banks.events import CreditEvent, UnrecognizedEvent
from ingest.inbox import Arrival, Delivery, Rejection, StoreResult


def store_arrival(arrival: Arrival) -> StoreResult | None:
    """Store or record a delivery by its meaning; return None if it is no payment to credit.

    Raise django.db.DatabaseError if nothing was stored.
    """
    delivery, event, payload, _ = arrival
    if isinstance(event, CreditEvent):
        return store_credit(event, delivery)
    if isinstance(event, UnrecognizedEvent):
        inbox.record_unrecognized(delivery, payload, event.reason)
    elif isinstance(event, Rejection):
        inbox.record_rejected(delivery, event.reason)
    else:
        inbox.record_ignored(delivery, event.reason)
    return None


def store_credit(event: CreditEvent, delivery: Delivery) -> StoreResult:
    """Store a payment, or a version of one. Raise django.db.DatabaseError if nothing was stored."""
    if event.version is None:
        return inbox.store(event.terms, delivery, event.bank_reference)
    return version_storage.store(event.terms, event.version, delivery)
