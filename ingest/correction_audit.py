"""Every reversal and replacement in the ledger has a cause, such as an operator action that is done.

Per operation, an operator action or a bank's version has written at most one reversal, and at most one
replacement if it posts terms: none if the operation stood so already.
"""

from collections import Counter
from collections.abc import Iterator
from uuid import UUID

from ingest import correction_actions
from ingest.models import OperationVersion, OperatorAction, OperatorActionItem
from ingest.versions import DELETED
from ledger.models import Payment, Replacement
from ledger.verification import Drift, Progress

REVERSALS, REPLACEMENTS = "reversal", "replacement"
Kind = OperatorAction.Kind
REVERSING = frozenset({Kind.REVERSE, Kind.CONFIRM, Kind.TAKE_BACK})  # they post no terms
CORRECTING = correction_actions.KINDS | REVERSING | {Kind.BY_LINE}


def verify_causes(progress: Progress, after: int) -> Iterator[Drift]:
    """Yield the operations with corrections above this primary key that more was done to than was caused."""
    new = Payment.objects.filter(pk__gt=after).order_by("pk")
    corrected = [*new.filter(reverses__isnull=False), *new.filter(replaces__isnull=False)]
    if corrected:
        progress("corrections", len(corrected))
    for operation_id in dict.fromkeys(_first(payment).operation_id for payment in corrected):
        yield from _verify(operation_id)


def _verify(operation_id: UUID) -> Iterator[Drift]:
    caused, written = _caused(operation_id), _written(operation_id)
    while caused != (caused := _caused(operation_id)):  # something was corrected between the two queries
        written = _written(operation_id)
    reversals_max = caused[REVERSALS] + caused[REPLACEMENTS]
    if written[REPLACEMENTS] > caused[REPLACEMENTS] or written[REVERSALS] > reversals_max:
        yield Drift(
            "correction",
            "a reversal or replacement is caused by an operator action or by a version of the operation",
            f"at most {caused[REPLACEMENTS]} replacements and {reversals_max} reversals",
            f"{written[REPLACEMENTS]} replacements, {written[REVERSALS]} reversals",
            Payment.objects.values_list("organization__inn", flat=True).get(operation_id=operation_id),
            operation_id=operation_id,
        )


def _caused(operation_id: UUID) -> Counter[str]:
    """Count what may have reversed the operation alone, and what may have posted other terms."""
    caused: Counter[str] = Counter()
    items = OperatorActionItem.objects.filter(
        webhook__operation_id=operation_id,
        outcome=OperatorActionItem.Outcome.DONE,
        action__kind__in=CORRECTING,
    )
    for kind in items.values_list("action__kind", flat=True):
        caused[REVERSALS if kind in REVERSING else REPLACEMENTS] += 1
    versions = OperationVersion.objects.filter(
        operation_id=operation_id, outcome=OperationVersion.Outcome.DONE
    )
    for version in versions.values_list("version", flat=True):
        caused[REVERSALS if version == DELETED else REPLACEMENTS] += 1
    return caused


def _written(operation_id: UUID) -> Counter[str]:
    """Count the reversals and the replacements of an operation, from its first payment on."""
    payment: Payment | None = Payment.objects.get(operation_id=operation_id)
    written: Counter[str] = Counter()
    while payment:
        written[REVERSALS] += Payment.objects.filter(reverses=payment).count()
        payment = Payment.objects.filter(replaces__replaced=payment).first()
        written[REPLACEMENTS] += payment is not None
    return written


def _first(payment: Payment) -> Payment:
    """Return the payment that the bank's delivery posted, before all corrections."""
    payment = Payment.objects.filter(reversal=payment).first() or payment
    while replaced := Replacement.objects.filter(payment=payment).select_related("replaced").first():
        payment = replaced.replaced
    return payment
