"""What waits in the suspense accounts for an organization.

The cost of these queries grows with what was posted to suspense since the oldest payment that waits, not with
all that was ever assigned: of each account, whose every entry is a payment or a reversal, the number of
waiting payments follows from its log, and that many are read from the newest back.
"""

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, F, QuerySet, Subquery
from django.db.models.functions import Coalesce

from ledger.models import Organization, Payment, UnassignedPayment

SCANNED_BACK_MAX = (
    10_000  # waiting payments of one account; with more, most are, and the first is found early
)


@dataclass(frozen=True)
class Unassigned:
    """The payments in suspense: their number, their sum, the first one's key and posting time."""

    count: int
    kopecks: int
    first_pk: int | None = None
    first_posted_at: datetime | None = None


NOTHING = Unassigned(0, 0)


def unassigned() -> Unassigned:
    """Return what waits now, in all suspense accounts."""
    accounts = Organization.objects.filter(kind=Organization.Kind.SUSPENSE, balance_kopecks__gt=0)
    found = [_of_account(pk) for pk in accounts.values_list("pk", flat=True)]
    oldest = min(
        (each for each in found if each.first_pk), key=lambda each: each.first_pk or 0, default=NOTHING
    )
    total = sum(each.count for each in found), sum(each.kopecks for each in found)
    return Unassigned(*total, oldest.first_pk, oldest.first_posted_at)


def _of_account(account: int) -> Unassigned:
    """Return what waits in this account. One statement reads its log's length and its reversals."""
    reversals = Payment.objects.filter(organization=account, reverses__gt=0).order_by()
    reversed_count = Subquery(reversals.values("organization").annotate(n=Count("pk")).values("n"))
    waiting = F("last_seq") - 2 * Coalesce(reversed_count, 0)
    found = Organization.objects.filter(pk=account).annotate(waiting=waiting)
    count, kopecks = found.values_list("waiting", "balance_kopecks").get()
    return Unassigned(count, kopecks, *(_first(account, count) or ()))


def _first(account: int, count: int) -> tuple[int, datetime] | None:
    """Return the key and the posting time of the account's first waiting payment, None without any."""
    payments = waiting_payments().filter(organization=account).values_list("pk", "created_at")
    if count > SCANNED_BACK_MAX:
        return payments.order_by("organization_id", "pk").first()
    newest = list(payments.order_by("-organization_id", "-pk")[:count])
    return newest[-1] if newest else None


def waiting_payments() -> QuerySet[UnassignedPayment]:
    """Return the payments that wait; the condition on `reverses` leads to their part of the index."""
    return UnassignedPayment.objects.filter(reverses__isnull=True)
