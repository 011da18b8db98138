"""Durable storage of deliveries. When a function here returns, the row is committed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from hashlib import sha256
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import structlog
from django.db import IntegrityError, connection, transaction
from django.db.models import BigIntegerField, CharField, DateTimeField, Field
from django.utils import timezone

from ingest import delivery_records
from ingest.banks.events import BankEvent, BankReference
from ingest.metrics import CONFLICTS, UNRECOGNIZED
from ingest.models import (
    DEFAULT_SOURCE,
    REASON_CHARS_MAX,
    ConflictingDelivery,
    DuplicateDelivery,
    IgnoredDelivery,
    OperationAlias,
    RejectedDelivery,
    UnrecognizedDelivery,
    Webhook,
)
from ingest.payment_fingerprint import payment_fingerprint
from ledger.terms import PaymentTerms

log = structlog.get_logger(__name__)

# Larger than most bodies: on a full disk the table's last page may still have room for a small one. But small
# enough to need no pages of its own: MariaDB 10.11 crashed when it found none for them.
PROBE_BODY_BYTES = 1024
OPEN_CONFLICTS_MAX = 100  # per webhook; further ones are only counted and logged
_GIVEN = (  # the fields of _column_values
    *("operation_id", "payer_inn", "amount_kopecks", "document_number", "document_date"),
    *("received_at", "body", "source", "client_ip", "payment_fingerprint"),
)
_PLAIN = (CharField, BigIntegerField)  # their values go to the database as they are


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


@dataclass(frozen=True, slots=True)
class Rejection:
    """The delivery was authentic, but can never become valid."""

    reason: str


class Arrival(NamedTuple):
    """A delivery that passed authentication, with its meaning.

    `payload` is the verified part of its body; `log_context` is for log lines in the writer's thread.
    """

    delivery: Delivery
    event: BankEvent | Rejection
    payload: bytes
    log_context: Mapping[str, Any] = MappingProxyType({})


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
    try:
        with transaction.atomic():
            alias_row(bank_reference, operation_id).save(force_insert=True)
    except IntegrityError:
        canonical_id: UUID = OperationAlias.objects.get(alias=bank_reference.alias).operation_id
        return canonical_id
    return None


def alias_row(bank_reference: BankReference, operation_id: UUID) -> OperationAlias:
    return OperationAlias(
        alias=bank_reference.alias, bank_reference=bank_reference.text, operation_id=operation_id
    )


def _store(terms: PaymentTerms, delivery: Delivery, alias_conflict: str = "") -> StoreResult:
    """Insert first and let the unique key deduplicate: a SELECT before it would race with other requests."""
    try:
        insert_webhooks([(terms, delivery)])
    except IntegrityError:
        webhook = Webhook.objects.filter(operation_id=terms.operation_id).first()
        if webhook is None:  # another constraint than the unique key
            raise
        differences = (alias_conflict, redelivery_difference(webhook, terms, delivery))
        if difference := ", ".join(filter(None, differences)):
            record_conflict(webhook, difference, delivery)
            return StoreResult.CONFLICT
        delivery_records.save_bounded(duplicate(webhook, delivery))
        return StoreResult.DUPLICATE
    return StoreResult.CREATED


def insert_webhooks(deliveries: Sequence[tuple[PaymentTerms, Delivery]]) -> None:
    """Insert a webhook for each delivery in one statement, with the model's defaults for all other fields.

    Webhook.objects.create() would rebuild the same statement for each request, half of the request's time.
    """
    insert = _prepared_insert()
    parameters: list[Any] = []
    for terms, delivery in deliveries:
        values = _column_values(terms, delivery)
        parameters += [
            convert(values[name], connection) if convert else values[name] for name, convert in insert.columns
        ]
        parameters += insert.defaults
    with connection.cursor() as cursor:
        cursor.execute(insert.head + ", ".join([insert.row] * len(deliveries)), parameters)


def _column_values(terms: PaymentTerms, delivery: Delivery) -> dict[str, Any]:
    return {
        "operation_id": terms.operation_id,
        "payer_inn": terms.inn,
        "amount_kopecks": terms.amount_kopecks,
        "document_number": terms.document_number,
        "document_date": terms.document_date,
        "received_at": timezone.now(),
        "body": delivery.body,
        "source": delivery.source,
        "client_ip": delivery.client_ip,
        "payment_fingerprint": payment_fingerprint(terms),
    }


class _Insert(NamedTuple):
    head: str  # up to VALUES
    row: str  # with a placeholder for each of `columns`, then one for each of `defaults`
    columns: Sequence[tuple[str, Callable[[Any, Any], Any] | None]]  # field name, conversion if it needs one
    defaults: Sequence[Any]  # as database parameters


@cache
def _prepared_insert() -> _Insert:
    """Build the INSERT of webhooks; columns and conversions are the model's."""
    writable = [
        field for field in Webhook._meta.concrete_fields if not field.primary_key and not field.generated
    ]
    given = [field for field in writable if field.name in _GIVEN]
    others = [field for field in writable if field.name not in _GIVEN and field.get_default() is not None]
    columns = ", ".join(connection.ops.quote_name(str(field.column)) for field in [*given, *others])
    return _Insert(
        head=f"INSERT INTO {Webhook._meta.db_table} ({columns}) VALUES ",  # noqa: S608 no input
        row=f"({', '.join(['%s'] * (len(given) + len(others)))})",
        columns=[(field.name, _conversion(field)) for field in given],
        defaults=[field.get_db_prep_save(field.get_default(), connection) for field in others],
    )


def _conversion(field: "Field[Any, Any]") -> Callable[[Any, Any], Any] | None:
    if isinstance(field, _PLAIN):
        return None
    return _utc_text if isinstance(field, DateTimeField) else field.get_db_prep_save


def _utc_text(value: datetime, _connection: Any) -> str:
    """Convert as a DateTimeField does with databases in UTC, where it takes half the time of a row."""
    return str(value.astimezone(UTC).replace(tzinfo=None))


def redelivery_difference(webhook: Webhook, terms: PaymentTerms, delivery: Delivery) -> str:
    """Return the names of what differs between a webhook and its redelivery; empty for a duplicate."""
    names = [] if webhook.source == delivery.source else ["source"]
    stored, all_names = webhook.terms, [field.name for field in fields(terms)]
    return ", ".join([*names, *(name for name in all_names if getattr(stored, name) != getattr(terms, name))])


def duplicate(webhook: Webhook, delivery: Delivery) -> DuplicateDelivery:
    return DuplicateDelivery(webhook=webhook, source=delivery.source, client_ip=delivery.client_ip)


def record_conflict(webhook: Webhook, difference: str, delivery: Delivery) -> None:
    """Record a redelivery that differs, and log it."""
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


def _is_new_conflict(webhook: Webhook, delivery: Delivery) -> bool:
    """Return whether to store a conflict: not the same bytes again, and not more than OPEN_CONFLICTS_MAX.

    Open conflicts are never deleted, so without a bound a sender could fill the disk with them.
    """
    still_open = ConflictingDelivery.objects.filter(webhook=webhook, resolved_by=None)
    is_repeated = still_open.filter(source=delivery.source, body=delivery.body).exists()
    return not is_repeated and still_open.count() < OPEN_CONFLICTS_MAX


def record_rejected(delivery: Delivery, reason: str) -> None:
    """Record a delivery that was answered 400."""
    delivery_records.save_bounded(RejectedDelivery(**reason_columns(delivery, reason)))


def record_ignored(delivery: Delivery, reason: str) -> None:
    """Record a delivery that is no payment to credit."""
    delivery_records.save_bounded(IgnoredDelivery(**reason_columns(delivery, reason)))


def record_unrecognized(delivery: Delivery, payload: bytes, reason: str) -> None:
    """Record a delivery that may be money, until an operator closes it.

    `payload` is the verified part of the body. Skip a payload that is already recorded for this source.
    """
    row = unrecognized(delivery, payload, reason)
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        if not UnrecognizedDelivery.objects.filter(source=row.source, digest=row.digest).exists():
            raise  # another constraint than the unique key
        return
    report_unrecognized(row)


def unrecognized(delivery: Delivery, payload: bytes, reason: str) -> UnrecognizedDelivery:
    return UnrecognizedDelivery(**reason_columns(delivery, reason), digest=sha256(payload).hexdigest())


def report_unrecognized(row: UnrecognizedDelivery) -> None:
    """Count and log a delivery that is recorded as unrecognized."""
    UNRECOGNIZED.inc()
    log.warning("delivery unrecognized", endpoint=row.source, reason=row.reason)


def reason_columns(delivery: Delivery, reason: str) -> dict[str, Any]:
    """Return the columns of a delivery that is recorded with its reason."""
    return asdict(delivery) | {"reason": reason[:REASON_CHARS_MAX]}
