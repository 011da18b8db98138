"""One payment at a time with the ORM, under the lock of its organization."""

from collections.abc import Callable

from django.db import transaction
from django.utils import timezone

from ledger.models import BalanceLog, Organization, Payment
from ledger.posting import create_organizations
from ledger.terms import PaymentTerms


def run_in_transaction(inn: str, action: Callable[[], None]) -> None:
    """Run `action`; if the organization does not exist, create it and run `action` again.

    It is created in a transaction of its own, since inserting under locks deadlocks; and only if it is
    missing, so that no request pays for a check.
    """
    try:
        with transaction.atomic():
            action()
    except Organization.DoesNotExist:
        create_organizations([inn])
        with transaction.atomic():
            action()


def credit(terms: PaymentTerms) -> None:
    """Write payment, log entry and balance in the caller's transaction.

    Raise IntegrityError if the operation is posted already, and Organization.DoesNotExist.
    """
    organization = Organization.objects.select_for_update().get(inn=terms.inn)
    now = timezone.now()
    payment = Payment.objects.create(
        operation_id=terms.operation_id,
        organization=organization,
        amount_kopecks=terms.amount_kopecks,
        document_number=terms.document_number,
        document_date=terms.document_date,
        created_at=now,
    )
    organization.last_seq += 1
    organization.balance_kopecks += terms.amount_kopecks
    BalanceLog.objects.create(
        organization=organization,
        seq=organization.last_seq,
        payment=payment,
        amount_kopecks=terms.amount_kopecks,
        balance_after_kopecks=organization.balance_kopecks,
        created_at=now,
    )
    organization.save(update_fields=["last_seq", "balance_kopecks"])
