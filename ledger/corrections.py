"""Correct a posted operation: reverse it, replace it, assign it from suspense, or undo that.

An operation may be corrected again and again; each replacement stands in place of the payment before it. A
correction is of the operation's last payment, which is read again under the locks, and commits as a whole.
"""

from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

from django.db import transaction

from core.db import transactions
from ledger import posting
from ledger.exceptions import CorrectionRefused
from ledger.inn import is_suspense
from ledger.models import Payment
from ledger.terms import PaymentTerms

Decide = Callable[[Payment], PaymentTerms | None]


def last_payment(operation_id: UUID) -> Payment:
    """Return the payment that stands for the operation now; it may be reversed.

    Raise CorrectionRefused if the operation is not posted.
    """
    payments = Payment.objects.select_related("organization", "reversal")
    payment = payments.filter(operation_id=operation_id, kind=Payment.Kind.PAYMENT).first()
    if payment is None:
        raise CorrectionRefused("the operation is not posted")
    while following := payments.filter(replaces__replaced=payment).first():
        payment = following
    return payment


def is_reversed(payment: Payment) -> bool:
    return Payment.objects.filter(reverses=payment).exists()


def reverse(operation_id: UUID) -> Payment:
    """Take the operation back; return the payment that was reversed. Raise CorrectionRefused."""
    return _correct(operation_id, lambda payment: None)


def replace_terms(operation_id: UUID, terms: PaymentTerms) -> Payment:
    """Reverse the operation, unless it is reversed, and post `terms` in its place.

    Return the payment that was replaced. The operation id in `terms` is of no account. Raise
    CorrectionRefused, also if the operation stands under these terms already.
    """
    return _correct(operation_id, lambda payment: terms)


def assign(operation_id: UUID, inn: str) -> Payment:
    """Move the operation from its suspense account to the organization `inn`; return the payment moved.

    Raise CorrectionRefused unless it is in suspense.
    """

    def to_organization(payment: Payment) -> PaymentTerms:
        if not is_suspense(payment.organization.inn) or is_suspense(inn):
            raise CorrectionRefused("only a payment in suspense is assigned, and to an organization")
        return replace(payment.terms, inn=inn)

    return _correct(operation_id, to_organization)


def unassign(operation_id: UUID) -> Payment:
    """Move an assigned operation back to its suspense account; return the payment moved.

    Raise CorrectionRefused unless it came from suspense and left it.
    """
    key = (
        Payment.objects.filter(operation_id=operation_id).values_list("organization__inn", flat=True).first()
    )

    def back(payment: Payment) -> PaymentTerms:
        if not key or not is_suspense(key) or payment.organization.inn == key:
            raise CorrectionRefused("the payment was not assigned from suspense")
        return replace(payment.terms, inn=key)

    return _correct(operation_id, back)


def _correct(operation_id: UUID, decide: Decide) -> Payment:
    """Reverse the last payment of the operation, and post the terms that `decide` returns for it, if any."""
    terms = decide(last_payment(operation_id))
    if terms and not transaction.get_connection().in_atomic_block:
        posting.create_organizations([terms.inn])  # inside the transaction it could deadlock

    def correct() -> Payment:
        with transaction.atomic():
            payment = last_payment(operation_id)
            terms = decide(payment)
            inns = {payment.organization.inn, terms.inn if terms else payment.organization.inn}
            organizations = posting.try_lock(inns, wait=True)
            locked = last_payment(operation_id)
            if locked != payment:
                raise CorrectionRefused("the operation was corrected by someone else at this moment")
            _apply(locked, terms, organizations)
            return payment

    return transactions.run_with_retries(correct)


def _apply(payment: Payment, terms: PaymentTerms | None, organizations: dict[str, int]) -> None:
    was_reversed = is_reversed(payment)
    if terms is None and was_reversed:
        raise CorrectionRefused("the operation is reversed already")
    if terms and not was_reversed and replace(terms, operation_id=payment.operation_id) == payment.terms:
        raise CorrectionRefused("the operation stands under these terms already")
    if not was_reversed:
        posting.reverse(payment, organizations)
    if terms:
        posting.replace(payment, terms, organizations)
