"""The only code that writes money.

To credit is to append a line to the organization's log; the balance is what the newest line says.

What is posted is told by a query, so that a payment's terms never leave the database on their way into the
ledger: its rows have the fields of PaymentTerms, by their names, and are credited in the order of their keys.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from enum import Enum
from functools import partial
from typing import Any
from uuid import UUID

import structlog
from django.db import IntegrityError, connection, transaction
from django.db.models import F, Max, OuterRef, QuerySet, Subquery, Sum, Window
from django.db.models.functions import Coalesce, Greatest, RowNumber
from django.db.transaction import TransactionManagementError

from core.db import clock
from core.db.insert_select import insert_select
from ledger.exceptions import MissingOrganizations
from ledger.models import BalanceLog, Organization, Payment
from ledger.queries import last_entry
from ledger.terms import PaymentTerms

log = structlog.get_logger(__name__)

PAYMENTS_LOGGED_MAX = 10  # of one batch; a line in the console for each would take longer than to post them
_TERMS = [field.name for field in fields(PaymentTerms)]


# Such look-ups for each row, rather than joins: no server can turn their order round, and read all payments
# of an organization because it is the only one of its batch.
_ORGANIZATION = Subquery(Organization.objects.filter(inn=OuterRef("inn")).values("id"))
_PAYMENT = Subquery(Payment.objects.filter(operation_id=OuterRef("operation_id")).values("id"))
_NEWEST_LINE_CREATED_AT = Subquery(
    BalanceLog.objects.filter(organization__inn=OuterRef("inn"), seq=F("organization__last_seq")).values(
        "created_at"
    )
)


class PriorPosting(Enum):
    """What an operation id is that was posted before. The third answer, created, is what posting it does."""

    EXISTS = "exists"  # under the same terms
    CONFLICT = "conflict"  # under other terms; nothing is written


def create_organizations(inns: Collection[str]) -> None:
    """Open those of `inns` that aren't open yet, in a short transaction of their own.

    Inserting them inside the posting transaction, before or after its locks, deadlocks on MariaDB. So
    may this one, rarely, where several sessions open the same ones; it can be called again.
    """
    if connection.in_atomic_block:
        raise TransactionManagementError("organizations are opened before the posting transaction")
    now = clock.database_now()
    organizations = [Organization(inn=inn, opened_at=now) for inn in sorted(inns)]
    Organization.objects.bulk_create(organizations, ignore_conflicts=True)


def try_lock(inns: set[str]) -> dict[str, int]:
    """Lock those of the organizations that nobody else holds, without waiting for any; their keys by INN.

    Raises MissingOrganizations.
    """
    keys = dict(Organization.objects.filter(inn__in=inns).values_list("inn", "id"))
    if missing := inns - keys.keys():
        raise MissingOrganizations(frozenset(missing))
    # By primary key: by INN the server might read, and lock, other rows on its way. The third column is what
    # keeps it from that, because the index of the INNs doesn't have it.
    locked = Organization.objects.select_for_update(skip_locked=True).filter(id__in_literals=keys.values())
    return {inn: key for inn, key, _ in locked.values_list("inn", "id", "last_seq")}


def post(told: QuerySet[Any], organizations: Mapping[str, int]) -> None:
    """Credit each payment of `told`: write the payments, then the log lines, then the balances.

    `organizations` are all that `told` names, as lock_free returned them in this transaction. It is the
    caller's, so that the caller's own mark commits with the money. It is lost by django.db.IntegrityError
    if one of the operations is posted already (ask posted_before) or its organization isn't among these, and
    by a DatabaseError of the server's own kind if a balance would overflow.
    """
    if not connection.in_atomic_block:
        raise TransactionManagementError("posting belongs into its caller's transaction")
    # Nobody else adds payments of organizations that we hold: what has a higher key from here on is ours.
    newest = Payment.objects.aggregate(key=Max("pk", default=-1))["key"]
    written = _insert_payments(told)
    if not written:
        return
    if _insert_entries(newest, organizations.values()) != written:
        raise IntegrityError("a payment of an organization that the caller does not hold")
    _update_balances(organizations.values())
    _log_after_commit(told, written)


def find_posted(told: QuerySet[Any]) -> dict[UUID, PriorPosting]:
    """Those operations of `told` that are posted already; the others, posted then, are created."""
    again = told.annotate(posted=_PAYMENT).filter(posted__isnull=False)
    tellings = {key: PaymentTerms(*terms) for key, *terms in again.values_list("posted", *_TERMS)}
    payments = Payment.objects.filter(pk__in=tellings).select_related("organization")
    return {
        payment.operation_id: PriorPosting.EXISTS
        if payment.terms == tellings[payment.pk]
        else PriorPosting.CONFLICT
        for payment in payments
    }


def _insert_payments(told: QuerySet[Any]) -> int:
    """Write a payment for each row of `told`; return their number.

    Its time is the database's, taken under the organization's lock, and not before that of the newest line:
    the database's clock may have been set back, or be another server's after a failover. So the times of a
    log never decrease, as ledger/queries.py needs.
    """
    now = clock.database_now_sql()
    return insert_select(
        Payment,
        told.order_by("pk"),
        operation_id=F("operation_id"),
        organization=_ORGANIZATION,
        amount_kopecks=F("amount_kopecks"),
        document_number=F("document_number"),
        document_date=F("document_date"),
        created_at=Greatest(now, Coalesce(_NEWEST_LINE_CREATED_AT, now)),
    )


def _insert_entries(after: int, organization_ids: Collection[int]) -> int:
    """The rule of crediting: a line's number is one more than that of the line before, and the balance after
    it is the one before, plus its amount. The organization's row says what its newest line was.

    For the payments of these organizations with keys above `after`; returns how many.
    """
    # As a sum, the organization leads no server to its index: by it one would read all payments of an
    # organization, or, because it has them in the order of the windows, all there are.
    organization_key = F("organization_id") + 0
    ours = Payment.objects.alias(organization_key=organization_key).filter(
        organization_key__in_literals=organization_ids
    )
    its = Organization.objects.filter(pk=OuterRef("organization_id"))
    since_newest: dict[str, Any] = {"partition_by": organization_key, "order_by": "pk"}
    return insert_select(
        BalanceLog,
        ours.filter(pk__gt=after).order_by("pk"),
        organization=F("organization_id"),
        seq=Subquery(its.values("last_seq")) + Window(RowNumber(), **since_newest),
        payment=F("pk"),
        amount_kopecks=F("amount_kopecks"),
        balance_after_kopecks=Subquery(its.values("balance_kopecks"))
        + Window(Sum("amount_kopecks"), **since_newest),
        created_at=F("created_at"),
    )


def _update_balances(organization_ids: Collection[int]) -> None:
    newest = last_entry()
    # An organization that was opened for an operation in conflict has no line yet.
    Organization.objects.filter(id__in_literals=organization_ids).update(
        balance_kopecks=Coalesce(Subquery(newest.values("balance_after_kopecks")[:1]), "balance_kopecks"),
        last_seq=Coalesce(Subquery(newest.values("seq")[:1]), "last_seq"),
    )


def _log_after_commit(told: QuerySet[Any], written: int) -> None:
    """A line in the console about money that was rolled back would be a lie."""
    if written > PAYMENTS_LOGGED_MAX:
        transaction.on_commit(lambda: log.info("balances changed", payments=written))
        if log.isEnabledFor(logging.DEBUG):
            all_of_them = list(map(str, told.values_list("operation_id", flat=True)))
            transaction.on_commit(lambda: log.debug("operations posted", operation_ids=all_of_them))
        return
    operation_ids = list(told.values_list("operation_id", flat=True))
    lines = BalanceLog.objects.filter(payment__operation_id__in=operation_ids).order_by("id")
    transaction.on_commit(partial(_log_entries, list(lines.select_related("payment"))))


def _log_entries(lines: Sequence[BalanceLog]) -> None:
    for line in lines:
        log.info(
            "balance changed",
            operation_id=str(line.payment.operation_id),
            organization_id=line.organization_id,
            seq=line.seq,
            amount_kopecks=line.amount_kopecks,
            balance_after_kopecks=line.balance_after_kopecks,
        )
