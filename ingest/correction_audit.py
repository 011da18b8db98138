"""Every reversal and replacement in the ledger has a cause, such as an operator action that is done.

Per operation, an action that posts other terms has written one replacement, and each action at most one
reversal. A cause besides the operators is added to CAUSES.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from uuid import UUID

from django.db.models import Count

from ingest.models import OperatorAction, OperatorActionItem
from ledger.models import Payment, Replacement
from ledger.verification import Drift, Progress

REVERSALS, REPLACEMENTS = "reversal", "replacement"
Kind = OperatorAction.Kind
# Return how many corrections of an operation were reversals alone and how many posted other terms.
Cause = Callable[[UUID], Counter[str]]


def by_operators(operation_id: UUID) -> Counter[str]:
    items = OperatorActionItem.objects.filter(
        webhook__operation_id=operation_id,
        outcome=OperatorActionItem.Outcome.DONE,
        action__kind__in=[Kind.REVERSE, Kind.REPLACE, Kind.ASSIGN, Kind.UNASSIGN],
    )
    caused: Counter[str] = Counter()
    for kind, count in items.values_list("action__kind").annotate(Count("id")).order_by():
        caused[REVERSALS if kind == Kind.REVERSE else REPLACEMENTS] += count
    return caused


CAUSES: list[Cause] = [by_operators]


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
    if written[REPLACEMENTS] != caused[REPLACEMENTS] or written[REVERSALS] > reversals_max:
        yield Drift(
            "correction",
            "a reversal or replacement is caused by an operator action that is done",
            f"{caused[REPLACEMENTS]} replacements, at most {reversals_max} reversals",
            f"{written[REPLACEMENTS]} replacements, {written[REVERSALS]} reversals",
            Payment.objects.values_list("organization__inn", flat=True).get(operation_id=operation_id),
            operation_id=operation_id,
        )


def _caused(operation_id: UUID) -> Counter[str]:
    return sum((cause(operation_id) for cause in CAUSES), Counter())


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
