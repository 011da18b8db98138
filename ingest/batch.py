"""Storage of many arrivals in one transaction. When store_batch returns, all that it reports is committed."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple
from uuid import UUID

from django.db import IntegrityError, OperationalError, connection, transaction
from structlog.contextvars import bound_contextvars

from core.best_effort import best_effort_write
from core.db.transactions import is_transient, was_rolled_back
from ingest import delivery_records
from ingest.arrivals import store_arrival
from ingest.banks.events import CreditEvent, IgnoredEvent, UnrecognizedEvent
from ingest.inbox import (
    Arrival,
    Delivery,
    Rejection,
    StoreResult,
    alias_row,
    duplicate,
    insert_webhooks,
    reason_columns,
    record_conflict,
    redelivery_difference,
    report_unrecognized,
    unrecognized,
)
from ingest.models import (
    DeliveryRecord,
    IgnoredDelivery,
    OperationAlias,
    RejectedDelivery,
    UnrecognizedDelivery,
    Webhook,
)
from ledger.terms import PaymentTerms

ROLLED_BACK_TRIES_MAX = 5
Stored = StoreResult | None


class Credit(NamedTuple):
    """A payment to credit. `alias_conflict` differs if its operation is stored already; see inbox.store."""

    position: int  # in the batch
    terms: PaymentTerms
    delivery: Delivery
    alias_conflict: str = ""


def store_batch(arrivals: Sequence[Arrival]) -> list[Stored | Exception]:
    """Return for each arrival what ingest.arrivals.store_arrival returns, or the exception that prevented it.

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
    if len({credit.terms.operation_id for credit in credits_}) < len(arrivals):
        return []
    try:
        _insert(credits_)
    except IntegrityError:  # not all are new; the statement stored none
        return []
    return [StoreResult.CREATED] * len(arrivals)


def _plain_credits(arrivals: Sequence[Arrival]) -> list[Credit]:
    return [
        Credit(position, arrival.event.terms, arrival.delivery)
        for position, arrival in enumerate(arrivals)
        if isinstance(arrival.event, CreditEvent) and arrival.event.is_plain
    ]


def _insert(credits_: Iterable[Credit]) -> None:
    """Insert in the order of the unique key, so that concurrent batches wait instead of deadlocking."""
    in_order = sorted(credits_, key=lambda credit: credit.terms.operation_id)
    insert_webhooks([(credit.terms, credit.delivery) for credit in in_order])


def _store_in_transaction(arrivals: Sequence[Arrival]) -> Sequence[Stored]:
    """Store arrivals of all kinds. Raise IntegrityError if another process stored one of them meanwhile."""
    results: list[Stored] = [None] * len(arrivals)
    with transaction.atomic():
        records = _store_credits(arrivals, _credits(arrivals), results)
        for position, (delivery, event, *_) in enumerate(arrivals):
            if isinstance(event, Rejection):
                records.append(RejectedDelivery(**reason_columns(delivery, event.reason)))
            elif isinstance(event, IgnoredEvent):
                records.append(IgnoredDelivery(**reason_columns(delivery, event.reason)))
            elif isinstance(event, CreditEvent) and event.version is not None:
                results[position] = _store_arrival(arrivals[position])
        delivery_records.insert(records)
        unrecognized_rows = _insert_unrecognized(arrivals)
        if connection.vendor == "sqlite":  # has the only write lock here, and later might not get it
            delivery_records.evict(records)
    for row, arrival in unrecognized_rows:
        with bound_contextvars(**arrival.log_context):
            report_unrecognized(row)
    if connection.vendor != "sqlite":  # after the commit: its row locks would outlast the statement
        with best_effort_write("old delivery records not deleted"):
            delivery_records.evict(records)
    return results


def _store_arrival(arrival: Arrival) -> Stored:
    with bound_contextvars(**arrival.log_context):
        return store_arrival(arrival)


def _credits(arrivals: Sequence[Arrival]) -> list[Credit]:
    """Return the payments to credit with their final operation ids, and register new bank references.

    Versions of operations are left out.
    """
    referred = {
        arrival.event.bank_reference.alias
        for arrival in arrivals
        if isinstance(arrival.event, CreditEvent) and arrival.event.bank_reference
    }
    if not referred:
        return _plain_credits(arrivals)
    rows = OperationAlias.objects.filter(alias__in=sorted(referred))
    canonical: dict[UUID, UUID] = dict(rows.values_list("alias", "operation_id"))
    credits_: list[Credit] = []
    new: list[OperationAlias] = []
    for position, (delivery, event, *_) in enumerate(arrivals):
        if not isinstance(event, CreditEvent) or event.version is not None:
            continue
        terms, reference, alias_conflict = event.terms, event.bank_reference, ""
        if reference and reference.alias in canonical:
            terms = replace(terms, operation_id=canonical[reference.alias])
        elif reference:
            canonical[reference.alias], alias_conflict = terms.operation_id, "bank_reference"
            new.append(alias_row(reference, terms.operation_id))
        credits_.append(Credit(position, terms, delivery, alias_conflict))
    OperationAlias.objects.bulk_create(sorted(new, key=lambda row: row.alias))
    return credits_


def _store_credits(
    arrivals: Sequence[Arrival], credits_: Sequence[Credit], results: list[Stored]
) -> list[DeliveryRecord]:
    """Store payments; the first of several with one operation id becomes the webhook.

    Return the duplicates, not yet inserted.
    """
    known = _webhooks({credit.terms.operation_id for credit in credits_})
    new: dict[UUID, Credit] = {}
    later: list[Credit] = []
    for credit in credits_:
        operation_id = credit.terms.operation_id
        if operation_id in known or new.setdefault(operation_id, credit) is not credit:
            later.append(credit)
        else:
            results[credit.position] = StoreResult.CREATED
    if new:
        _insert(new.values())
    known |= _webhooks({credit.terms.operation_id for credit in later} - known.keys())
    duplicates: list[DeliveryRecord] = []
    for position, terms, delivery, alias_conflict in later:
        webhook = known[terms.operation_id]
        differences = (alias_conflict, redelivery_difference(webhook, terms, delivery))
        if difference := ", ".join(filter(None, differences)):
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


def _insert_unrecognized(arrivals: Sequence[Arrival]) -> list[tuple[UnrecognizedDelivery, Arrival]]:
    """Insert each payload that is not yet recorded for its source. Return the rows with their arrivals."""
    given: dict[tuple[str, str], tuple[UnrecognizedDelivery, Arrival]] = {}
    for arrival in arrivals:
        if isinstance(arrival.event, UnrecognizedEvent):
            row = unrecognized(arrival.delivery, arrival.payload, arrival.event.reason)
            given.setdefault((row.source, row.digest), (row, arrival))
    if not given:
        return []
    digests = sorted({digest for _, digest in given})
    rows = UnrecognizedDelivery.objects.filter(digest__in=digests)
    known = set(rows.values_list("source", "digest"))
    new = [given[key] for key in sorted(given.keys() - known)]
    UnrecognizedDelivery.objects.bulk_create([row for row, _ in new])
    return new
