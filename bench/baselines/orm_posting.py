"""One payment at a time, under the lock of its organization."""

from collections.abc import Callable

from django.db import transaction
from django.utils import timezone

from ledger.models import BalanceLog, Organization, Payment
from ledger.posting import create_organizations
from ledger.terms import PaymentTerms


def in_one_transaction(inn: str, action: Callable[[], None]) -> None:
    """Run `act`; if it finds no organization of this INN, open it and run `act` again.

    Opened in a transaction of its own, since inserting under locks deadlocks; and only when it is missing, so
    that a look beforehand slows nobody down.
    """
    try:
        with transaction.atomic():
            action()
    except Organization.DoesNotExist:
        create_organizations([inn])
        with transaction.atomic():
            action()


def credit(terms: PaymentTerms) -> None:
    """Payment, log line and balance, in the caller's transaction. Raises IntegrityError when the operation is
    posted already, and Organization.DoesNotExist."""
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
