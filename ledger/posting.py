"""The only code that writes money.

To credit is to append a line to the organization's log; the balance is what the newest line says.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from enum import Enum
from uuid import UUID

import structlog
from django.db import connection, transaction
from django.db.models import OuterRef, Subquery
from django.db.transaction import TransactionManagementError
from django.utils import timezone

from ledger.exceptions import BalanceOverflow, OrganizationsMissing
from ledger.models import BalanceLog, Organization, Payment
from ledger.money import BALANCE_KOPECKS_MAX
from ledger.terms import PaymentTerms

log = structlog.get_logger(__name__)


class Outcome(Enum):
    """The three answers to an operation id."""

    CREATED = "created"
    EXISTS = "exists"  # posted before, under the same terms
    CONFLICT = "conflict"  # posted before, under other terms; nothing was written


def open_organizations(inns: Collection[str]) -> None:
    """Open those of `inns` that aren't open yet, in a short transaction of their own.

    Inserting them inside the posting transaction, before or after its locks, deadlocks on MariaDB. So
    may this one, rarely, where several sessions open the same ones; it can be called again.
    """
    if connection.in_atomic_block:
        raise TransactionManagementError("organizations are opened before the posting transaction")
    now = timezone.now()
    organizations = [Organization(inn=inn, opened_at=now) for inn in sorted(inns)]
    Organization.objects.bulk_create(organizations, ignore_conflicts=True)


def lock_free(inns: set[str]) -> set[str]:
    """Lock those of the organizations that nobody else holds, without waiting for any; returns their INNs.

    Whoever posts to these alone waits for nobody. Raises OrganizationsMissing.
    """
    return set(_lock_organizations(inns, wait=False))


def post(batch: Sequence[PaymentTerms]) -> list[Outcome]:
    """Credit each payment of `batch` that was not posted before; the outcomes stand in its order.

    1. Lock the organizations, in the order of their ids.
    2. Look for operation ids already posted, under the locks.
    3. Write the payments, then the log lines, then the balances.

    Runs inside the caller's transaction, so that the caller's own mark commits with the money.
    Raises OrganizationsMissing, BalanceOverflow, and django.db.IntegrityError when the same
    operation id is posted at this moment to another organization; the transaction is lost then.
    """
    if not connection.in_atomic_block:
        raise TransactionManagementError("posting belongs into its caller's transaction")
    organizations = _lock_organizations({terms.inn for terms in batch}, wait=True)
    posted = _posted([terms.operation_id for terms in batch])
    outcomes, fresh = [], []
    for terms in batch:
        if terms.operation_id not in posted:
            outcomes.append(Outcome.CREATED)
            fresh.append(terms)
            posted[terms.operation_id] = terms
        else:
            same = posted[terms.operation_id] == terms
            outcomes.append(Outcome.EXISTS if same else Outcome.CONFLICT)
    if fresh:
        _credit(organizations, fresh, now=timezone.now())
    return outcomes


def _lock_organizations(inns: set[str], *, wait: bool) -> dict[str, Organization]:
    ids = dict(Organization.objects.filter(inn__in=inns).values_list("inn", "id"))
    if missing := inns - ids.keys():
        raise OrganizationsMissing(frozenset(missing))
    # By primary key and in its order: every transaction takes its locks in the same sequence.
    locked = Organization.objects.select_for_update(skip_locked=not wait).filter(id__in=ids.values())
    return {organization.inn: organization for organization in locked.order_by("id")}


def _posted(operation_ids: Sequence[UUID]) -> dict[UUID, PaymentTerms]:
    payments = Payment.objects.filter(operation_id__in=operation_ids).select_related("organization")
    return {payment.operation_id: payment.terms for payment in payments}


def _credit(organizations: dict[str, Organization], batch: Sequence[PaymentTerms], now: datetime) -> None:
    payment_ids = _write_payments(organizations, batch, now)
    lines: list[tuple[PaymentTerms, BalanceLog]] = []
    for terms in batch:
        organization = organizations[terms.inn]
        organization.last_seq += 1
        organization.balance_kopecks += terms.amount_kopecks
        if organization.balance_kopecks > BALANCE_KOPECKS_MAX:
            raise BalanceOverflow(f"operation {terms.operation_id} would overflow the balance")
        line = BalanceLog(
            organization=organization,
            seq=organization.last_seq,
            payment_id=payment_ids[terms.operation_id],
            amount_kopecks=terms.amount_kopecks,
            balance_after_kopecks=organization.balance_kopecks,
            created_at=now,
        )
        lines.append((terms, line))
    BalanceLog.objects.bulk_create([line for _, line in lines])
    _bring_balances_to_newest_line({line.organization_id for _, line in lines})
    # After the commit: a line in the console about money that was rolled back would be a lie.
    transaction.on_commit(lambda: _report(lines))


def _write_payments(
    organizations: dict[str, Organization], batch: Sequence[PaymentTerms], now: datetime
) -> dict[UUID, int]:
    """Insert the payments; returns their primary keys by operation id."""
    Payment.objects.bulk_create(
        Payment(
            operation_id=terms.operation_id,
            organization=organizations[terms.inn],
            amount_kopecks=terms.amount_kopecks,
            document_number=terms.document_number,
            document_date=terms.document_date,
            created_at=now,
        )
        for terms in batch
    )
    # Asked for, because MySQL's INSERT doesn't tell the keys it gave to many rows.
    written = Payment.objects.filter(operation_id__in=[terms.operation_id for terms in batch])
    return dict(written.values_list("operation_id", "id"))


def _bring_balances_to_newest_line(organization_ids: Collection[int]) -> None:
    newest = BalanceLog.objects.filter(organization=OuterRef("pk")).order_by("-seq")
    Organization.objects.filter(id__in=organization_ids).update(
        balance_kopecks=Subquery(newest.values("balance_after_kopecks")[:1]),
        last_seq=Subquery(newest.values("seq")[:1]),
    )


def _report(lines: Sequence[tuple[PaymentTerms, BalanceLog]]) -> None:
    for terms, line in lines:
        log.info(
            "balance changed",
            operation_id=str(terms.operation_id),
            organization_id=line.organization_id,
            seq=line.seq,
            amount_kopecks=line.amount_kopecks,
            balance_after_kopecks=line.balance_after_kopecks,
        )
