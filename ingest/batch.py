"""Storage of many arrivals in one transaction. When store_batch returns, all that it reports is committed."""

from collections.abc import Iterable, Sequence
from uuid import UUID

from django.db import IntegrityError, OperationalError, transaction
from structlog.contextvars import bound_contextvars

from core.best_effort import best_effort_write
from core.db.transactions import is_transient, was_rolled_back
from ingest import delivery_records
from ingest.banks.events import CreditEvent, IgnoredEvent
from ingest.inbox import (
    Arrival,
    Delivery,
    Rejection,
    StoreResult,
    duplicate,
    insert_webhooks,
    reason_columns,
    record_conflict,
    redelivery_difference,
    store_arrival,
)
from ingest.models import DeliveryRecord, IgnoredDelivery, RejectedDelivery, Webhook
from ledger.terms import PaymentTerms

ROLLED_BACK_TRIES_MAX = 5
Stored = StoreResult | None
Credit = tuple[int, PaymentTerms, Delivery]  # with its position in the batch


def store_batch(arrivals: Sequence[Arrival]) -> list[Stored | Exception]:
    """Return for each arrival what ingest.inbox.store_arrival returns, or the exception that prevented it.

    An arrival that the database refuses does not affect the others: the batch is halved down to it. A
    transient error, such as a lost connection, affects all.
    """
    try:
        return [*_run_again_if_rolled_back(arrivals)]
    except Exception as exc:  # noqa: BLE001 returned to the request that waits for it
        if len(arrivals) == 1 or is_transient(exc):
            return [exc] * len(arrivals)
    middle = len(arrivals) // 2
    return [*store_batch(arrivals[:middle]), *store_batch(arrivals[middle:])]


def _run_again_if_rolled_back(arrivals: Sequence[Arrival]) -> Sequence[Stored]:
    for tries in range(1, ROLLED_BACK_TRIES_MAX + 1):
        try:
            if len(arrivals) == 1:
                return [_store_arrival(arrivals[0])]
            return _insert_if_all_new(arrivals) or _store_in_transaction(arrivals)
        except OperationalError as exc:
            if tries == ROLLED_BACK_TRIES_MAX or not was_rolled_back(exc):
                raise
    raise AssertionError("unreachable")


def _insert_if_all_new(arrivals: Sequence[Arrival]) -> Sequence[Stored]:
    """Insert the usual batch, new operations only, in one statement; return nothing if it is another one."""
    credits_ = _plain_credits(arrivals)
    if len({terms.operation_id for _, terms, _ in credits_}) < len(arrivals):
        return []
    try:
        _insert(credits_)
    except IntegrityError:  # not all are new; the statement stored none
        return []
    return [StoreResult.CREATED] * len(arrivals)


def _plain_credits(arrivals: Sequence[Arrival]) -> list[Credit]:
    return [
        (position, arrival.event.terms, arrival.delivery)
        for position, arrival in enumerate(arrivals)
        if isinstance(arrival.event, CreditEvent) and arrival.event.bank_reference is None
    ]


def _insert(credits_: Iterable[Credit]) -> None:
    """Insert in the order of the unique key, so that concurrent batches wait instead of deadlocking."""
    in_order = sorted(credits_, key=lambda credit: credit[1].operation_id)
    insert_webhooks([(terms, delivery) for _, terms, delivery in in_order])


def _store_in_transaction(arrivals: Sequence[Arrival]) -> Sequence[Stored]:
    """Store arrivals of all kinds. Raise IntegrityError if another process stored one of them meanwhile."""
    results: list[Stored] = [None] * len(arrivals)
    plain = {position for position, _, _ in _plain_credits(arrivals)}
    records: list[DeliveryRecord] = []
    with transaction.atomic():
        records += _store_credits(arrivals, results)
        for position, arrival in enumerate(arrivals):
            if isinstance(arrival.event, Rejection):
                records.append(RejectedDelivery(**reason_columns(arrival.delivery, arrival.event.reason)))
            elif isinstance(arrival.event, IgnoredEvent):
                records.append(IgnoredDelivery(**reason_columns(arrival.delivery, arrival.event.reason)))
            elif position not in plain:
                results[position] = _store_arrival(arrival)
        delivery_records.insert(records)
    # After the commit: its row locks would outlast the statement.
    with best_effort_write("old delivery records not deleted"):
        delivery_records.evict(records)
    return results


def _store_arrival(arrival: Arrival) -> Stored:
    with bound_contextvars(**arrival.log_context):
        return store_arrival(arrival)


def _store_credits(arrivals: Sequence[Arrival], results: list[Stored]) -> list[DeliveryRecord]:
    """Store plain credits; the first of several with one operation id becomes the webhook.

    Return the duplicates, not yet inserted.
    """
    credits_ = _plain_credits(arrivals)
    known = _webhooks({terms.operation_id for _, terms, _ in credits_})
    new: dict[UUID, Credit] = {}
    later: list[Credit] = []
    for credit in credits_:
        operation_id = credit[1].operation_id
        if operation_id in known or new.setdefault(operation_id, credit) is not credit:
            later.append(credit)
        else:
            results[credit[0]] = StoreResult.CREATED
    if new:
        _insert(new.values())
    known |= _webhooks({terms.operation_id for _, terms, _ in later} - known.keys())
    duplicates: list[DeliveryRecord] = []
    for position, terms, delivery in later:
        webhook = known[terms.operation_id]
        if difference := redelivery_difference(webhook, terms, delivery):
            with bound_contextvars(**arrivals[position].log_context):
                record_conflict(webhook, difference, delivery)
            results[position] = StoreResult.CONFLICT
        else:
            duplicates.append(duplicate(webhook, delivery))
            results[position] = StoreResult.DUPLICATE
    return duplicates


def _webhooks(operation_ids: set[UUID]) -> dict[UUID, Webhook]:
    if not operation_ids:
        return {}
    found = Webhook.objects.filter(operation_id__in=sorted(operation_ids)).defer("body")
    return {webhook.operation_id: webhook for webhook in found}
