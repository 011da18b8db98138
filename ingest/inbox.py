"""Durable storage of what the bank tells. When a function here returns, the row is committed."""

from collections.abc import Sequence
from dataclasses import fields, replace
from enum import Enum
from functools import cache
from hashlib import sha256
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import structlog
from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db.models import Field
from django.utils import timezone

from ingest.banks.telling import BankId
from ingest.metrics import CONFLICTS, UNRECOGNIZED
from ingest.models import (
    BANK,
    REASON_CHARS_MAX,
    BankOperation,
    ConflictingDelivery,
    IgnoredDelivery,
    KeptDelivery,
    RejectedDelivery,
    RepeatedDelivery,
    UnrecognizedDelivery,
    Webhook,
)
from ledger.terms import PaymentTerms

log = structlog.get_logger(__name__)

# More than most have: where the disk is full, the last page of the table may still hold a small one. But
# never one that needs pages of its own: MariaDB 10.11 ended itself when it found none for them.
TRIAL_BODY_BYTES = 1024


class Stored(Enum):
    NEW = "new"
    REPEATED = "repeated"  # this operation id was stored before, with the same content
    CONFLICTING = "conflicting"  # … with other content


def store(
    terms: PaymentTerms,
    body: bytes,
    source: str = BANK,
    bank_id: BankId | None = None,
    address: str = "",
) -> Stored:
    """Store a delivery as a new webhook, or beside the webhook that this operation id has already.

    With a `bank_id` that was told before, its first telling decides which operation is meant, whatever the
    terms make of it now. A new one on an operation that is stored already is a conflict even with equal
    terms: the bank has renamed a payment, or two payments look alike, and only a person can tell. So is an
    operation that another source has stored: operation ids are one space for all sources.
    Raises django.db.DatabaseError when nothing could be stored.
    """
    if bank_id is None:
        return _store(terms, body, source, address)
    with transaction.atomic():  # no id may be remembered without its webhook
        meant = _remember(bank_id, terms.operation_id)
        if meant is None:
            return _store(terms, body, source, address, another_name="bank_id")
        return _store(replace(terms, operation_id=meant), body, source, address)


def try_out() -> None:
    """Store a webhook of nobody, and take it back. Raises django.db.DatabaseError where the door would."""
    nobodys = PaymentTerms(uuid4(), "0" * 10, 1, "trial", timezone.now())
    with transaction.atomic():
        _store(nobodys, bytes(TRIAL_BODY_BYTES), BANK, "")
        transaction.set_rollback(True)


def _remember(bank_id: BankId, operation_id: UUID) -> UUID | None:
    """Remember which operation `bank_id` means; returns which one it means already, if it was told before."""
    row = BankOperation(alias=bank_id.alias, bank_id=bank_id.text, operation_id=operation_id)
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        told: UUID = BankOperation.objects.get(alias=bank_id.alias).operation_id
        return told
    return None


def _store(terms: PaymentTerms, body: bytes, source: str, address: str, another_name: str = "") -> Stored:
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
            source_address=address,
        )
    except IntegrityError:
        first = Webhook.objects.filter(operation_id=terms.operation_id).first()
        if first is None:  # another constraint than the unique key
            raise
        another_source = "" if first.source == source else "source"
        difference = ", ".join(filter(None, [another_name, another_source, _difference(first.terms, terms)]))
        return _store_beside(first, difference, body, source, address)
    return Stored.NEW


def _insert(**told: Any) -> None:
    """Insert a webhook: these fields as `told`, all others as the model's defaults have it.

    Webhook.objects.create() would build the same statement anew each time, for half of a request's work.
    """
    insert = _insert_of(tuple(told))
    values = [field.get_db_prep_save(told[field.name], connection) for field in insert.told]
    with connection.cursor() as cursor:
        cursor.execute(insert.sql, [*values, *insert.defaults])


class _Insert(NamedTuple):
    sql: str  # with a place for each value of `told`, and behind them for each of `defaults`
    told: Sequence["Field[Any, Any]"]
    defaults: Sequence[Any]  # as the database takes them


@cache
def _insert_of(names: tuple[str, ...]) -> _Insert:
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


def _store_beside(first: Webhook, difference: str, body: bytes, source: str, address: str) -> Stored:
    if not difference:
        _keep(RepeatedDelivery(webhook=first, source=source, source_address=address))
        return Stored.REPEATED
    CONFLICTS.inc()
    _keep(
        ConflictingDelivery(
            webhook=first, body=body, difference=difference, source=source, source_address=address
        )
    )
    log.warning("conflict", operation_id=str(first.operation_id), source=source, difference=difference)
    return Stored.CONFLICTING


def keep_rejected(body: bytes, reason: str, source: str = BANK, address: str = "") -> None:
    """Keep a delivery that was answered 400, for the admins."""
    reason = reason[:REASON_CHARS_MAX]
    _keep(RejectedDelivery(body=body, reason=reason, source=source, source_address=address))


def keep_ignored(body: bytes, reason: str, source: str, address: str = "") -> None:
    """Keep a delivery that is no payment to credit, for the admins."""
    reason = reason[:REASON_CHARS_MAX]
    _keep(IgnoredDelivery(body=body, reason=reason, source=source, source_address=address))


def keep_unrecognized(body: bytes, payload: bytes, reason: str, source: str, address: str = "") -> None:
    """Keep a delivery that may be money, until a person has closed it.

    `payload` is the part of `body` that was verified. A known one is kept already: the bank repeats itself.
    """
    delivery = UnrecognizedDelivery(
        body=body,
        reason=reason[:REASON_CHARS_MAX],
        source=source,
        source_address=address,
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
    log.warning("delivery unrecognized", door=source, reason=delivery.reason)


def _keep(delivery: KeptDelivery) -> None:
    """Save `delivery`, and let go of what stands too far behind it: a flood can't fill the disk."""
    delivery.save(force_insert=True)
    type(delivery).objects.filter(pk__lte=delivery.pk - settings.KEPT_DELIVERIES_MAX).delete()


def _difference(first: PaymentTerms, second: PaymentTerms) -> str:
    names = [field.name for field in fields(PaymentTerms)]
    return ", ".join(name for name in names if getattr(first, name) != getattr(second, name))
