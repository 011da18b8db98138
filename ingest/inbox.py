"""Durable storage of deliveries. When a function here returns, the row is committed."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
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

# Larger than most bodies: on a full disk the table's last page may still have room for a small one. But small
# enough to need no pages of its own: MariaDB 10.11 crashed when it found none for them.
PROBE_BODY_BYTES = 1024
OPEN_CONFLICTS_MAX = 100  # per webhook; further ones are only counted and logged
EVICTED_AT_ONCE_MAX = 1000  # deliveries


@dataclass(frozen=True, slots=True)
class Delivery:
    """One HTTP request of a bank. `source` is the endpoint's name, `client_ip` empty where it is unknown."""

    body: bytes  # as received
    source: str = DEFAULT_SOURCE
    client_ip: str = ""


class StoreResult(Enum):
    CREATED = "created"
    DUPLICATE = "duplicate"  # the operation id is already stored with the same content
    CONFLICT = "conflict"  # … with other content


def store(
    terms: PaymentTerms, delivery: Delivery, bank_reference: BankReference | None = None
) -> StoreResult:
    """Store `delivery` as a new webhook, or record it with the webhook that already has its operation id.

    A known `bank_reference` keeps the operation id it was first stored with, regardless of that in `terms`.
    A new reference to a stored operation is a conflict even with equal terms: the bank renamed a payment, or
    two payments look alike, and only an operator can decide. An operation stored from another source is a
    conflict, too, because all sources share one space of operation ids.
    Raise django.db.DatabaseError if nothing was stored.
    """
    if bank_reference is None:
        return _store(terms, delivery)
    with transaction.atomic():  # an alias without its webhook would misdirect the bank's retry
        canonical_id = _register_alias(bank_reference, terms.operation_id)
        if canonical_id is None:
            return _store(terms, delivery, alias_conflict="bank_reference")
        return _store(replace(terms, operation_id=canonical_id), delivery)


def probe_write() -> None:
    """Store a webhook and roll back. Raise django.db.DatabaseError where the endpoint would."""
    terms = PaymentTerms(uuid4(), "0" * 10, 1, "trial", timezone.now())
    with transaction.atomic():
        _store(terms, Delivery(bytes(PROBE_BODY_BYTES)))
        transaction.set_rollback(True)


def _register_alias(bank_reference: BankReference, operation_id: UUID) -> UUID | None:
    """Map `bank_reference` to `operation_id`. Return the operation id it is already mapped to, else None."""
    row = OperationAlias(
        alias=bank_reference.alias, bank_reference=bank_reference.text, operation_id=operation_id
    )
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        canonical_id: UUID = OperationAlias.objects.get(alias=bank_reference.alias).operation_id
        return canonical_id
    return None


def _store(terms: PaymentTerms, delivery: Delivery, alias_conflict: str = "") -> StoreResult:
    """Insert first and let the unique key deduplicate: a SELECT before it would race with other requests."""
    try:
        _insert(
            operation_id=terms.operation_id,
            payer_inn=terms.inn,
            amount_kopecks=terms.amount_kopecks,
            document_number=terms.document_number,
            document_date=terms.document_date,
            received_at=timezone.now(),
            body=delivery.body,
            source=delivery.source,
            client_ip=delivery.client_ip,
        )
    except IntegrityError:
        webhook = Webhook.objects.filter(operation_id=terms.operation_id).first()
        if webhook is None:  # another constraint than the unique key
            raise
        source_conflict = "" if webhook.source == delivery.source else "source"
        conflicts = (alias_conflict, source_conflict, _difference(webhook.terms, terms))
        return _record_redelivery(webhook, ", ".join(filter(None, conflicts)), delivery)
    return StoreResult.CREATED


def _insert(**values: Any) -> None:
    """Insert a webhook with these values, and the model's defaults for all other fields.

    Webhook.objects.create() would rebuild the same statement for each request, half of the request's time.
    """
    insert = _prepared_insert(tuple(values))
    parameters = [field.get_db_prep_save(values[field.name], connection) for field in insert.fields]
    with connection.cursor() as cursor:
        cursor.execute(insert.sql, [*parameters, *insert.defaults])


class _Insert(NamedTuple):
    sql: str  # with a placeholder for each of `fields`, then one for each of `defaults`
    fields: Sequence["Field[Any, Any]"]
    defaults: Sequence[Any]  # as database parameters


@cache
def _prepared_insert(names: tuple[str, ...]) -> _Insert:
    """Build a webhook's INSERT for the fields of these names; columns and conversions are the model's."""
    writable = [
        field for field in Webhook._meta.concrete_fields if not field.primary_key and not field.generated
    ]
    others = {field.name: field for field in writable}
    given = [others.pop(name) for name in names]
    columns = ", ".join(connection.ops.quote_name(str(field.column)) for field in [*given, *others.values()])
    placeholders = ", ".join(["%s"] * (len(given) + len(others)))
    return _Insert(
        sql=f"INSERT INTO {Webhook._meta.db_table} ({columns}) VALUES ({placeholders})",  # noqa: S608 no input
        fields=given,
        defaults=[field.get_db_prep_save(field.get_default(), connection) for field in others.values()],
    )


def _record_redelivery(webhook: Webhook, difference: str, delivery: Delivery) -> StoreResult:
    if not difference:
        row = DuplicateDelivery(webhook=webhook, source=delivery.source, client_ip=delivery.client_ip)
        _save_bounded(row)
        return StoreResult.DUPLICATE
    CONFLICTS.inc()
    is_new = _is_new_conflict(webhook, delivery)
    if is_new:
        ConflictingDelivery.objects.create(webhook=webhook, difference=difference, **asdict(delivery))
    log.warning(
        "conflict",
        operation_id=str(webhook.operation_id),
        source=delivery.source,
        difference=difference,
        kept=is_new,
    )
    return StoreResult.CONFLICT


def _is_new_conflict(webhook: Webhook, delivery: Delivery) -> bool:
    """Return whether to store a conflict: not the same bytes again, and not more than OPEN_CONFLICTS_MAX.

    Open conflicts are never deleted, so without a bound a sender could fill the disk with them.
    """
    still_open = ConflictingDelivery.objects.filter(webhook=webhook, resolved_by=None)
    is_repeated = still_open.filter(source=delivery.source, body=delivery.body).exists()
    return not is_repeated and still_open.count() < OPEN_CONFLICTS_MAX


def record_rejected(delivery: Delivery, reason: str) -> None:
    """Record a delivery that was answered 400."""
    _save_bounded(RejectedDelivery(**_columns(delivery, reason)))


def record_ignored(delivery: Delivery, reason: str) -> None:
    """Record a delivery that is no payment to credit."""
    _save_bounded(IgnoredDelivery(**_columns(delivery, reason)))


def record_unrecognized(delivery: Delivery, payload: bytes, reason: str) -> None:
    """Record a delivery that may be money, until an operator closes it.

    `payload` is the verified part of the body. Skip a payload that is already recorded for this source.
    """
    row = UnrecognizedDelivery(**_columns(delivery, reason), digest=sha256(payload).hexdigest())
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        if not UnrecognizedDelivery.objects.filter(source=row.source, digest=row.digest).exists():
            raise  # another constraint than the unique key
        return
    UNRECOGNIZED.inc()
    log.warning("delivery unrecognized", endpoint=row.source, reason=row.reason)


def _columns(delivery: Delivery, reason: str) -> dict[str, Any]:
    return asdict(delivery) | {"reason": reason[:REASON_CHARS_MAX]}


def _save_bounded(row: DeliveryRecord) -> None:
    """Save `row` and sometimes delete the oldest of its model and source beyond DELIVERY_RECORDS_MAX.

    Finding the oldest walks the source's index, so only one save in DELIVERY_RECORDS_MAX / 100 does it; the
    bound may be exceeded by a few per cent. Keys can't tell the count: auto_increment_increment and rows of
    other sources leave gaps.
    """
    row.save(force_insert=True)
    if randrange(max(settings.DELIVERY_RECORDS_MAX // 100, 1)) == 0:
        _evict(type(row), row.source)


def _evict(model: type[DeliveryRecord], source: str) -> None:
    """Delete by primary key, so that concurrent evictions wait for each other instead of deadlocking."""
    newest_first = model.objects.filter(source=source).order_by("-pk").values_list("pk", flat=True)
    limit = settings.DELIVERY_RECORDS_MAX
    excess = list(newest_first[limit : limit + EVICTED_AT_ONCE_MAX])
    model.objects.filter(pk__in=excess).delete()


def _difference(first: PaymentTerms, second: PaymentTerms) -> str:
    names = [field.name for field in fields(PaymentTerms)]
    return ", ".join(name for name in names if getattr(first, name) != getattr(second, name))
