"""Correct a posted operation: reverse it, replace it, assign it from suspense, or undo one of these.

An operation may be corrected again and again; each replacement stands in place of the payment before it. A
correction is of the operation's last payment. It is planned without a lock, for a preview, and planned again
under the locks; only if both plans are equal it is carried out, as a whole.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from django.db import connection, transaction
from django.utils.translation import gettext as _

from core.db import transactions
from ledger import posting
from ledger.exceptions import CorrectionRefused
from ledger.inn import is_suspense
from ledger.models import Organization, Payment, Replacement
from ledger.terms import PaymentTerms

# Returns the terms to post in place of the payment, None to post none. Raises CorrectionRefused.
Decide = Callable[[Payment], PaymentTerms | None]


@dataclass(frozen=True)
class Plan:
    """What a correction does: reverse `payment` unless it is reversed, then post `terms` in its place."""

    payment: Payment
    is_reversed: bool
    terms: PaymentTerms | None

    @property
    def inns(self) -> set[str]:
        inn = self.payment.organization.inn
        return {inn, self.terms.inn if self.terms else inn}

    @property
    def entries(self) -> list[tuple[str, int]]:
        """The INN and the signed amount in kopecks of each entry that will be written."""
        reversal = [] if self.is_reversed else [(self.payment.organization.inn, -self.payment.amount_kopecks)]
        return reversal + ([(self.terms.inn, self.terms.amount_kopecks)] if self.terms else [])

    def balances(self) -> list[tuple[str, int, int]]:
        """Return (INN, balance before, balance after) of each organization, in kopecks."""
        now = dict.fromkeys(sorted(self.inns), 0) | current_balances(self.inns)
        changes = dict.fromkeys(now, 0)
        for inn, amount in self.entries:
            changes[inn] += amount
        return [(inn, balance, balance + changes[inn]) for inn, balance in now.items()]


def current_balances(inns: Collection[str]) -> dict[str, int]:
    """Return the balance in kopecks of those of the organizations that exist, by INN."""
    return dict(Organization.objects.filter(inn__in=inns).values_list("inn", "balance_kopecks"))


def last_payment(operation_id: UUID) -> Payment:
    """Return the payment that stands for the operation now; it may be reversed.

    Raise CorrectionRefused if the operation is not posted.
    """
    payments = Payment.objects.select_related("organization")
    payment = payments.filter(operation_id=operation_id, kind=Payment.Kind.PAYMENT).first()
    if payment is None:
        raise CorrectionRefused(_("the operation is not posted"))
    while following := payments.filter(replaces__replaced=payment).first():
        payment = following
    return payment


def states(operation_ids: Collection[UUID]) -> list[tuple[UUID, int, bool]]:
    """Return (operation id, key of its last payment, is that reversed) of each posted operation, in order."""
    posted = Payment.objects.filter(operation_id__in=operation_ids, kind=Payment.Kind.PAYMENT)
    last = dict(posted.values_list("operation_id", "pk"))
    while following := dict(
        Replacement.objects.filter(replaced__in=set(last.values())).values_list("replaced_id", "payment_id")
    ):
        last = {operation_id: following.get(pk, pk) for operation_id, pk in last.items()}
    reversals = Payment.objects.filter(reverses__in=set(last.values()))
    reversed_keys = set(reversals.values_list("reverses_id", flat=True))
    return sorted((operation_id, pk, pk in reversed_keys) for operation_id, pk in last.items())


def first_operations(payment_ids: Collection[int]) -> dict[int, UUID]:
    """Return, by the key of each payment, the operation that the bank reported and it stands for."""
    first = {pk: pk for pk in payment_ids}
    while replaced := dict(
        Replacement.objects.filter(payment__in=set(first.values())).values_list("payment_id", "replaced_id")
    ):
        first = {pk: replaced.get(earlier, earlier) for pk, earlier in first.items()}
    reported = dict(Payment.objects.filter(pk__in=set(first.values())).values_list("pk", "operation_id"))
    return {pk: reported[earlier] for pk, earlier in first.items()}


def plan(operation_id: UUID, decide: Decide) -> Plan:
    """Plan a correction. Raise CorrectionRefused if it would change nothing, or must not be."""
    payment = last_payment(operation_id)
    reversed_before, terms = is_reversed(payment), decide(payment)
    if terms is None and reversed_before:
        raise CorrectionRefused(_("the operation is reversed already"))
    if terms and not reversed_before and replace(terms, operation_id=payment.operation_id) == payment.terms:
        raise CorrectionRefused(_("the operation stands under these terms already"))
    return Plan(payment, reversed_before, terms)


def correct(operation_id: UUID, decide: Decide) -> Plan:
    """Carry out a correction in one transaction; return what was done.

    Raise CorrectionRefused as `plan` does, and MissingOrganizations inside the caller's transaction.
    """
    planned = plan(operation_id, decide)
    if not connection.in_atomic_block:  # inside a transaction it could deadlock
        posting.create_organizations(planned.inns)

    def carry_out() -> Plan:
        with transaction.atomic():
            organizations = posting.try_lock(planned.inns, wait=True)
            locked = plan(operation_id, decide)
            if locked != planned:
                raise CorrectionRefused(_("the operation was corrected by someone else at this moment"))
            if not locked.is_reversed:
                posting.reverse(locked.payment, organizations)
            if locked.terms:
                posting.replace(locked.payment, locked.terms, organizations)
        return locked

    return transactions.run_with_retries(carry_out)


def reversal(_payment: Payment) -> None:
    """Decide to take the operation back."""


def replacement(terms: PaymentTerms) -> Decide:
    """Decide to post `terms`, whose operation id is of no account, also if the operation was taken back."""
    return lambda _payment: terms


def restoration(payment: Payment) -> PaymentTerms:
    """Decide to post a reversed operation again, by the same terms."""
    return payment.terms


def assignment(inn: str) -> Decide:
    """Decide to move the operation from suspense to the organization `inn`."""

    def decide(payment: Payment) -> PaymentTerms:
        _refuse_reversed(payment)
        if not is_suspense(payment.organization.inn) or is_suspense(inn):
            raise CorrectionRefused(_("only a payment in suspense is assigned, and to an organization"))
        return replace(payment.terms, inn=inn)

    return decide


def return_to_suspense(operation_id: UUID) -> Decide:
    """Decide to move the operation back to the suspense account where it was posted."""
    first = Payment.objects.filter(operation_id=operation_id).values_list("organization__inn", flat=True)
    key = first.first() or ""

    def decide(payment: Payment) -> PaymentTerms:
        _refuse_reversed(payment)
        if not is_suspense(key) or payment.organization.inn == key:
            raise CorrectionRefused(_("the payment was not assigned from suspense"))
        return replace(payment.terms, inn=key)

    return decide


def _refuse_reversed(payment: Payment) -> None:
    """Raise CorrectionRefused for a reversed payment: to move its money would be to post it again."""
    if is_reversed(payment):
        raise CorrectionRefused(_("the operation is reversed already"))


def is_reversed(payment: Payment) -> bool:
    """Return whether the payment is taken back."""
    return Payment.objects.filter(reverses=payment).exists()


def unchanged_since(moment: datetime, decide: Decide) -> Decide:
    """Decide as `decide` does, but refuse an operation that was corrected after `moment`.

    `moment` is of the database's clock. A decision made before that correction was not about its result.
    """

    def checked(payment: Payment) -> PaymentTerms | None:
        reversal = Payment.objects.filter(reverses=payment).first()
        is_replacement = Replacement.objects.filter(payment=payment).exists()
        last_correction = reversal or (payment if is_replacement else None)
        if last_correction and last_correction.created_at > moment:
            raise CorrectionRefused(_("the operation was corrected by someone else at this moment"))
        return decide(payment)

    return checked
