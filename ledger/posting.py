"""The only code that writes to the ledger.

To credit an organization is to append an entry to its log; the balance is the balance after its last entry.
A correction takes back a whole payment by a negative entry, and may then post another in its place.
Posting is idempotent on `operation_id`: its unique key refuses a second payment, and `find_posted` returns
the operations that are posted already, under the same terms or under others.

The input of `post` is a queryset with the columns of PaymentTerms, so that posting is INSERT … SELECT and no
terms leave the database on their way into the ledger. Its rows are credited in primary-key order.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from enum import Enum
from functools import partial
from types import MappingProxyType
from typing import Any, Literal
from uuid import UUID

import structlog
from django.db import IntegrityError, connection, transaction
from django.db.models import DateTimeField, F, Max, OuterRef, QuerySet, Subquery, Sum, Value, Window
from django.db.models.expressions import Combinable
from django.db.models.functions import Coalesce, Greatest, RowNumber
from django.db.transaction import TransactionManagementError

from core.db import clock
from core.db.insert_select import insert_select
from ledger.exceptions import MissingOrganizations
from ledger.inn import is_suspense
from ledger.models import BalanceLog, Organization, Payment, Replacement
from ledger.operation_id import OperationIdField, reversal_id
from ledger.queries import last_entry
from ledger.terms import PaymentTerms

log = structlog.get_logger(__name__)

PAYMENTS_LOGGED_MAX = 10  # of one batch: a log line for each payment would take longer than to post it
_TERMS = [field.name for field in fields(PaymentTerms)]

# A subquery for each row instead of a join: no optimizer can reverse it, and read all payments of an
# organization because it is the only one of its batch.
_ORGANIZATION = Subquery(Organization.objects.filter(inn=OuterRef("inn")).values("id"))
_PAYMENT = Subquery(Payment.objects.filter(operation_id=OuterRef("operation_id")).values("id"))
_LAST_ENTRY_CREATED_AT = Subquery(
    BalanceLog.objects.filter(organization__inn=OuterRef("inn"), seq=F("organization__last_seq")).values(
        "created_at"
    )
)


class PriorPosting(Enum):
    """How an operation that is posted already compares with the same operation in a batch."""

    EXISTS = "exists"  # the same terms
    CONFLICT = "conflict"  # other terms; nothing is written


def create_organizations(inns: Collection[str]) -> None:
    """Create the missing organizations of `inns` in a short transaction of their own.

    Inserting them inside the posting transaction, before or after its locks, deadlocks on MariaDB. This
    transaction may deadlock too, rarely, when several sessions create the same organizations; it can be
    retried. Raise TransactionManagementError inside a transaction.
    """
    if connection.in_atomic_block:
        raise TransactionManagementError("organizations are created before the posting transaction")
    now = clock.database_now()
    kinds = Organization.Kind
    organizations = [
        Organization(inn=inn, kind=kinds.SUSPENSE if is_suspense(inn) else kinds.ORGANIZATION, opened_at=now)
        for inn in sorted(inns)
    ]
    Organization.objects.bulk_create(organizations, ignore_conflicts=True)


def try_lock(inns: set[str], *, wait: bool = False) -> dict[str, int]:
    """Lock the organizations that are unlocked, without waiting; return their primary keys by INN.

    With `wait`, wait for the others, in primary-key order: batches never wait, so there is no deadlock.
    Raise MissingOrganizations if any of `inns` does not exist.
    """
    keys = dict(Organization.objects.filter(inn__in=inns).values_list("inn", "id"))
    if missing := inns - keys.keys():
        raise MissingOrganizations(frozenset(missing))
    # By primary key: by INN the server might read, and lock, other rows on the way. The third column is not
    # in the index on the INN, which keeps the server from using that index.
    locking = Organization.objects.select_for_update(skip_locked=not wait)
    locked = locking.filter(id__in_literals=keys.values())
    if wait:
        locked = locked.order_by("id")
    return {inn: key for inn, key, _ in locked.values_list("inn", "id", "last_seq")}


def post(payments: QuerySet[Any], organizations: Mapping[str, int]) -> None:
    """Credit each row of `payments`: insert the payments, then the log entries, then update the balances.

    `organizations` are all organizations of `payments`, as `try_lock` returned them in this transaction. The
    transaction is the caller's, so that the status of its webhooks commits together with the money.

    Raise IntegrityError if an operation is posted already (check with `find_posted`) or its organization is
    not among `organizations`, and a DatabaseError of the server's own kind if a balance would overflow.
    Either way the transaction is lost.
    """
    inserted = _append(payments, organizations)
    if inserted:
        _log_after_commit(payments, inserted)


def reverse(payment: Payment, organizations: Mapping[str, int]) -> None:
    """Take back `payment` in whole: append a negative entry to the log that it credited.

    `organizations`, the transaction and the errors are those of `post`. The reversal's operation id follows
    from the payment's. Raise IntegrityError too if `payment` is reversed already, or is a reversal itself.
    """
    operation_id = reversal_id(payment.operation_id)
    source = Payment.objects.filter(pk=payment.pk, kind=Payment.Kind.PAYMENT)
    reversal: dict[str, Combinable] = {
        "operation_id": Value(operation_id, OperationIdField()),
        "kind": Value(Payment.Kind.REVERSAL.value),
        "reverses": F("pk"),
    }
    if not _append(source.annotate(inn=F("organization__inn")), organizations, reversal, sign=-1):
        raise IntegrityError("a reversal can't be reversed")
    _log_after_commit(Payment.objects.filter(operation_id=operation_id), 1)


def replace(payment: Payment, terms: PaymentTerms, organizations: Mapping[str, int]) -> None:
    """Post `terms` in place of the reversed `payment`, to the same organization or to another one.

    The operation id is that of `terms.in_place_of(payment.operation_id)`. `organizations`, the transaction
    and the errors are those of `post`. Raise IntegrityError too if `payment` is not reversed, or replaced
    already, by these terms or by others.
    """
    terms = terms.in_place_of(payment.operation_id)
    source = Payment.objects.filter(pk=payment.pk, reversal__isnull=False).annotate(inn=Value(terms.inn))
    replacement: dict[str, Combinable] = {
        "operation_id": Value(terms.operation_id, OperationIdField()),
        "amount_kopecks": Value(terms.amount_kopecks),
        "document_number": Value(terms.document_number),
        "document_date": Value(terms.document_date, DateTimeField()),
    }
    if not _append(source, organizations, replacement):
        raise IntegrityError("only a reversed payment can be replaced")
    posted = Payment.objects.filter(operation_id=terms.operation_id)
    Replacement.objects.create(replaced=payment, payment=posted.get())
    _log_after_commit(posted, 1)


def _append(
    payments: QuerySet[Any],
    organizations: Mapping[str, int],
    columns: Mapping[str, Combinable] = MappingProxyType({}),
    sign: Literal[1, -1] = 1,
) -> int:
    """Insert the payments, then the log entries, then update the balances; return the number of payments.

    `columns` replace columns of `payments`; an entry's amount is the payment's, times `sign`.
    """
    if not connection.in_atomic_block:
        raise TransactionManagementError("posting must run inside its caller's transaction")
    # The organizations are locked, so no other session adds payments to them: higher keys are of this batch.
    # On Galera a lock holds on one node only: what keeps another node's payments out is that both
    # transactions update the organization's row, so that the later one fails in certification (1213).
    max_pk_before = Payment.objects.aggregate(key=Max("pk", default=-1))["key"]
    inserted = _insert_payments(payments, columns)
    if inserted:
        if _insert_entries(max_pk_before, organizations.values(), sign) != inserted:
            raise IntegrityError("a payment of an organization that the caller has not locked")
        _update_balances(organizations.values())
    return inserted


def find_posted(payments: QuerySet[Any]) -> dict[UUID, PriorPosting]:
    """Return the operations of `payments` that are posted already, by operation id."""
    posted = payments.annotate(posted=_PAYMENT).filter(posted__isnull=False)
    new_terms = {key: PaymentTerms(*terms) for key, *terms in posted.values_list("posted", *_TERMS)}
    return {
        payment.operation_id: (
            PriorPosting.EXISTS
            if payment.kind == Payment.Kind.PAYMENT and payment.terms == new_terms[payment.pk]
            else PriorPosting.CONFLICT
        )
        for payment in Payment.objects.filter(pk__in=new_terms).select_related("organization")
    }


def _insert_payments(payments: QuerySet[Any], columns: Mapping[str, Combinable]) -> int:
    """Insert a payment for each row of `payments`, with `columns` instead of its own; return the number.

    `created_at` is the database's time, read under the organization's lock, but never earlier than that of
    the last entry: the database's clock may have been set back, or be another server's after a failover. So
    the times of a log never decrease, as ledger/queries.py requires.
    """
    now = clock.database_now_sql()
    inserted: dict[str, Combinable] = {
        "operation_id": F("operation_id"),
        "organization": _ORGANIZATION,
        "amount_kopecks": F("amount_kopecks"),
        "document_number": F("document_number"),
        "document_date": F("document_date"),
        "created_at": Greatest(now, Coalesce(_LAST_ENTRY_CREATED_AT, now)),
    }
    return insert_select(Payment, payments.order_by("pk"), **{**inserted, **columns})


def _insert_entries(after: int, organization_ids: Collection[int], sign: Literal[1, -1]) -> int:
    """Insert an entry for each payment of these organizations with a primary key above `after`.

    Return the number of entries. An entry's `seq` is that of the entry before plus one, its amount is the
    payment's times `sign`, and its balance is the balance before plus the amount. The organization's row
    holds the `seq` and the balance of its last entry.
    """
    # An expression instead of the column, so that no server uses the index on the organization: it would read
    # all payments of an organization or, since that index has the order of the windows, all payments.
    organization_key = F("organization_id") + 0
    batch = Payment.objects.alias(organization_key=organization_key).filter(
        organization_key__in_literals=organization_ids
    )
    parent = Organization.objects.filter(pk=OuterRef("organization_id"))
    amount = F("amount_kopecks") if sign == 1 else -F("amount_kopecks")
    window: dict[str, Any] = {"partition_by": organization_key, "order_by": "pk"}
    return insert_select(
        BalanceLog,
        batch.filter(pk__gt=after).order_by("pk"),
        organization=F("organization_id"),
        seq=Subquery(parent.values("last_seq")) + Window(RowNumber(), **window),
        payment=F("pk"),
        amount_kopecks=amount,
        balance_after_kopecks=Subquery(parent.values("balance_kopecks")) + Window(Sum(amount), **window),
        created_at=F("created_at"),
    )


def _update_balances(organization_ids: Collection[int]) -> None:
    last = last_entry()
    # An organization that was created for a conflicting operation has no entry yet.
    Organization.objects.filter(id__in_literals=organization_ids).update(
        balance_kopecks=Coalesce(Subquery(last.values("balance_after_kopecks")[:1]), "balance_kopecks"),
        last_seq=Coalesce(Subquery(last.values("seq")[:1]), "last_seq"),
    )


def _log_after_commit(payments: QuerySet[Any], inserted: int) -> None:
    """Log the new balances once the transaction is committed, so that nothing rolled back is logged."""
    if inserted > PAYMENTS_LOGGED_MAX:
        transaction.on_commit(lambda: log.info("balances changed", payments=inserted))
        if log.is_enabled_for(logging.DEBUG):
            operation_ids = list(map(str, payments.values_list("operation_id", flat=True)))
            transaction.on_commit(lambda: log.debug("balances changed by", operation_ids=operation_ids))
        return
    posted = list(payments.values_list("operation_id", flat=True))
    entries = BalanceLog.objects.filter(payment__operation_id__in=posted).order_by("id")
    transaction.on_commit(partial(_log_entries, list(entries.select_related("payment"))))


def _log_entries(entries: Sequence[BalanceLog]) -> None:
    for entry in entries:
        log.info(
            "balance changed",
            operation_id=str(entry.payment.operation_id),
            organization_id=entry.organization_id,
            seq=entry.seq,
            amount_kopecks=entry.amount_kopecks,
            balance_after_kopecks=entry.balance_after_kopecks,
        )
