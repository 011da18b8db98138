"""Durable storage of what the bank tells. When a function here returns, the row is committed."""

from collections.abc import Sequence
from dataclasses import fields, replace
from enum import Enum
from functools import cache
from hashlib import sha256
from random import randrange
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import structlog
from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db.models import Field
from django.utils import timezone

from ingest.banks.events import BankReference
from ingest.metrics import CONFLICTS, UNRECOGNIZED
from ingest.models import (
    DEFAULT_SOURCE,
    REASON_CHARS_MAX,
    ConflictingDelivery,
    DeliveryRecord,
    DuplicateDelivery,
    IgnoredDelivery,
    OperationAlias,
    RejectedDelivery,
    UnrecognizedDelivery,
    Webhook,
)
from ledger.terms import PaymentTerms

log = structlog.get_logger(__name__)

# More than most have: where the disk is full, the last page of the table may still hold a small one. But
# never one that needs pages of its own: MariaDB 10.11 ended itself when it found none for them.
PROBE_BODY_BYTES = 1024
OPEN_CONFLICTS_MAX = 100  # of one webhook; later ones are counted and logged only
EVICTED_AT_ONCE_MAX = 1000  # deliveries


class StoreResult(Enum):
    CREATED = "created"
    DUPLICATE = "duplicate"  # this operation id was stored before, with the same content
    CONFLICT = "conflict"  # … with other content


def store(
    terms: PaymentTerms,
    body: bytes,
    source: str = DEFAULT_SOURCE,
    bank_reference: BankReference | None = None,
    address: str = "",
) -> StoreResult:
    """Store a delivery as a new webhook, or beside the webhook that this operation id has already.

    With a `bank_reference` that was told before, its first telling decides which operation is meant, whatever the
    terms make of it now. A new one on an operation that is stored already is a conflict even with equal
    terms: the bank has renamed a payment, or two payments look alike, and only a person can tell. So is an
    operation that another source has stored: operation ids are one space for all sources.
    Raises django.db.DatabaseError when nothing could be stored.
    """
    if bank_reference is None:
        return _store(terms, body, source, address)
    with transaction.atomic():  # no id may be remembered without its webhook
        meant = _register_alias(bank_reference, terms.operation_id)
        if meant is None:
            return _store(terms, body, source, address, another_name="bank_reference")
        return _store(replace(terms, operation_id=meant), body, source, address)


def probe_write() -> None:
    """Store a webhook of nobody, and take it back. Raises django.db.DatabaseError where the door would."""
    nobodys = PaymentTerms(uuid4(), "0" * 10, 1, "trial", timezone.now())
    with transaction.atomic():
        _store(nobodys, bytes(PROBE_BODY_BYTES), DEFAULT_SOURCE, "")
        transaction.set_rollback(True)


def _register_alias(bank_reference: BankReference, operation_id: UUID) -> UUID | None:
    """Remember which operation `bank_reference` means; returns which one it means already, if it was told before."""
    row = OperationAlias(
        alias=bank_reference.alias, bank_reference=bank_reference.text, operation_id=operation_id
    )
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        told: UUID = OperationAlias.objects.get(alias=bank_reference.alias).operation_id
        return told
    return None


def _store(
    terms: PaymentTerms, body: bytes, source: str, address: str, another_name: str = ""
) -> StoreResult:
    """The unique key decides who is first; a look beforehand would only be right until the INSERT."""
    try:
        _insert(
            operation_id=terms.operation_id,
            payer_inn=terms.inn,
            amount_kopecks=terms.amount_kopecks,
            document_number=terms.document_number,
            document_date=terms.document_date,
            body=body,
            received_at=timezone.now(),
            source=source,
            client_ip=address,
        )
    except IntegrityError:
        first = Webhook.objects.filter(operation_id=terms.operation_id).first()
        if first is None:  # another constraint than the unique key
            raise
        another_source = "" if first.source == source else "source"
        difference = ", ".join(filter(None, [another_name, another_source, _difference(first.terms, terms)]))
        return _record_redelivery(first, difference, body, source, address)
    return StoreResult.CREATED


def _insert(**told: Any) -> None:
    """Insert a webhook: these fields as `told`, all others as the model's defaults have it.

    Webhook.objects.create() would build the same statement anew each time, for half of a request's work.
    """
    insert = _prepared_insert(tuple(told))
    values = [field.get_db_prep_save(told[field.name], connection) for field in insert.told]
    with connection.cursor() as cursor:
        cursor.execute(insert.sql, [*values, *insert.defaults])


class _Insert(NamedTuple):
    sql: str  # with a place for each value of `told`, and behind them for each of `defaults`
    told: Sequence["Field[Any, Any]"]
    defaults: Sequence[Any]  # as the database takes them


@cache
def _prepared_insert(names: tuple[str, ...]) -> _Insert:
    """The INSERT of a webhook by the fields of these names; columns and conversions are the model's."""
    writable = [
        field for field in Webhook._meta.concrete_fields if not field.primary_key and not field.generated
    ]
    others = {field.name: field for field in writable}
    told = [others.pop(name) for name in names]
    columns = ", ".join(connection.ops.quote_name(str(field.column)) for field in [*told, *others.values()])
    places = ", ".join(["%s"] * (len(told) + len(others)))
    return _Insert(
        sql=f"INSERT INTO {Webhook._meta.db_table} ({columns}) VALUES ({places})",  # noqa: S608 all ours
        told=told,
        defaults=[field.get_db_prep_save(field.get_default(), connection) for field in others.values()],
    )


def _record_redelivery(
    first: Webhook, difference: str, body: bytes, source: str, address: str
) -> StoreResult:
    if not difference:
        _save_bounded(DuplicateDelivery(webhook=first, source=source, client_ip=address))
        return StoreResult.DUPLICATE
    CONFLICTS.inc()
    is_kept = _is_new_conflict(first, body, source)
    if is_kept:
        ConflictingDelivery.objects.create(
            webhook=first, body=body, difference=difference, source=source, client_ip=address
        )
    log.warning(
        "conflict", operation_id=str(first.operation_id), source=source, difference=difference, kept=is_kept
    )
    return StoreResult.CONFLICT


def _is_new_conflict(first: Webhook, body: bytes, source: str) -> bool:
    """Whether this conflict is to be stored. Open ones are money in question, and never deleted; so what a
    sender could fill the disk with is left out: the same bytes once more, and more than a person reads.
    """
    still_open = ConflictingDelivery.objects.filter(webhook=first, resolved_by=None)
    is_repeated = still_open.filter(source=source, body=body).exists()
    return not is_repeated and still_open.count() < OPEN_CONFLICTS_MAX


def record_rejected(body: bytes, reason: str, source: str = DEFAULT_SOURCE, address: str = "") -> None:
    """Keep a delivery that was answered 400, for the admins."""
    reason = reason[:REASON_CHARS_MAX]
    _save_bounded(RejectedDelivery(body=body, reason=reason, source=source, client_ip=address))


def record_ignored(body: bytes, reason: str, source: str, address: str = "") -> None:
    """Keep a delivery that is no payment to credit, for the admins."""
    reason = reason[:REASON_CHARS_MAX]
    _save_bounded(IgnoredDelivery(body=body, reason=reason, source=source, client_ip=address))


def record_unrecognized(body: bytes, payload: bytes, reason: str, source: str, address: str = "") -> None:
    """Keep a delivery that may be money, until a person has closed it.

    `payload` is the part of `body` that was verified. A known one is kept already: the bank repeats itself.
    """
    delivery = UnrecognizedDelivery(
        body=body,
        reason=reason[:REASON_CHARS_MAX],
        source=source,
        client_ip=address,
        digest=sha256(payload).hexdigest(),
    )
    try:
        with transaction.atomic():
            delivery.save(force_insert=True)
    except IntegrityError:
        if not UnrecognizedDelivery.objects.filter(source=source, digest=delivery.digest).exists():
            raise  # another constraint than the unique key
        return
    UNRECOGNIZED.inc()
    log.warning("delivery unrecognized", endpoint=source, reason=delivery.reason)


def _save_bounded(delivery: DeliveryRecord) -> None:
    """Save `delivery`, and now and then delete those of its kind and source that are too many.

    To find the oldest of DELIVERY_RECORDS_MAX takes a walk along the index of the sources, so it is done once
    for each hundredth part of that number: so far the bound may be exceeded. Keys can't tell the number: with
    auto_increment_increment, or among the rows of other sources, they have gaps.
    """
    delivery.save(force_insert=True)
    if randrange(max(settings.DELIVERY_RECORDS_MAX // 100, 1)) == 0:
        _evict(type(delivery), delivery.source)


def _evict(model: type[DeliveryRecord], source: str) -> None:
    """Deletes by primary key, so that two at once wait for each other and don't deadlock."""
    newest_first = model.objects.filter(source=source).order_by("-pk").values_list("pk", flat=True)
    most = settings.DELIVERY_RECORDS_MAX
    too_many = list(newest_first[most : most + EVICTED_AT_ONCE_MAX])
    model.objects.filter(pk__in=too_many).delete()


def _difference(first: PaymentTerms, second: PaymentTerms) -> str:
    names = [field.name for field in fields(PaymentTerms)]
    return ", ".join(name for name in names if getattr(first, name) != getattr(second, name))
