"""Which days of our accounts are covered by proven statements, and whether these follow on each other.

A statement proves an account if its sums hold and all its documents are readable, or if an operator has
accepted it. A day counts as covered once it was over when the bank wrote the file.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise

from django.db.models import F, Q, QuerySet

from core.days import shifted
from statements.models import BankStatement, OwnAccount, StatementBalance

ONE_DAY = timedelta(days=1)
PROVEN = Q(statement__accepted_by__isnull=False) | Q(proof=StatementBalance.Proof.HOLDS) & ~Q(
    statement__verdict=BankStatement.Verdict.PARTIAL
)
_NEWEST_FIRST = ("-statement__created_at", "-statement_id", "first_day", "pk")


@dataclass(frozen=True, slots=True)
class Period:
    """Days from `first` to `last`, both included."""

    first: date
    last: date


@dataclass(frozen=True, slots=True)
class Break:
    """The closing balance of a day that is not the opening balance of the next one, in kopecks."""

    account: str
    day: date
    closing: int
    opening: int


def proven_balances(account: OwnAccount) -> QuerySet[StatementBalance]:
    """Return the account's proven sections with days."""
    return StatementBalance.objects.filter(PROVEN, account=account, first_day__lte=F("last_day"))


def covered_periods(account: OwnAccount, within: Period | None = None) -> list[Period]:
    """Return the finished days that proven statements of `account` cover, as periods in order.

    `within` limits them to statements of these days.
    """
    proven = proven_balances(account)
    if within:
        proven = proven.filter(first_day__lte=within.last, last_day__gte=within.first)
    days = proven.values_list("first_day", "finished_day")
    return merge(Period(first, last) for first, last in days if first and last)


def merge(periods: Iterable[Period]) -> list[Period]:
    """Return `periods` in order, those that touch or overlap as one; leave out those that run backwards."""
    merged: list[Period] = []
    forward = (period for period in periods if period.first <= period.last)
    for period in sorted(forward, key=lambda period: (period.first, period.last)):
        if merged and period.first - merged[-1].last <= ONE_DAY:
            merged[-1] = Period(merged[-1].first, max(merged[-1].last, period.last))
        else:
            merged.append(period)
    return merged


def fully_covered_periods() -> list[Period]:
    """Return the days, as periods in order, on which proven statements cover every active account."""
    accounts = [(account, covered_periods(account)) for account in OwnAccount.objects.order_by("number")]
    edges = {account.since for account, _ in accounts}
    edges |= {shifted(account.until, 1) for account, _ in accounts if account.until}
    for _, periods in accounts:
        edges |= {period.first for period in periods} | {shifted(period.last, 1) for period in periods}
    covered = []
    for first, after in pairwise(sorted(edges)):
        active = [periods for account, periods in accounts if account.is_active_on(first)]
        if active and all(any(period.first <= first <= period.last for period in ps) for ps in active):
            covered.append(Period(first, after - ONE_DAY))
    return merge(covered)


def breaks() -> Iterator[Break]:
    """Yield the breaks of all accounts."""
    for account in OwnAccount.objects.order_by("number"):
        yield from breaks_of(account)


def breaks_of(account: OwnAccount) -> Iterator[Break]:
    """Yield the days whose closing balance is not the opening balance of the day after.

    Of several statements the newest says what a balance was. One that was written before its last day was
    over doesn't know that day's closing balance.
    """
    closings: dict[int, int] = {}
    openings: dict[int, int] = {}
    balances = StatementBalance.objects.filter(account=account).order_by(*_NEWEST_FIRST)
    columns = ("first_day", "last_day", "finished_day", "opening", "closing")
    for first, last, finished, opening, closing in balances.values_list(*columns):
        if first and opening is not None:
            openings.setdefault(first.toordinal() - 1, opening)
        if last and closing is not None and finished == last:
            closings.setdefault(last.toordinal(), closing)
    for day in sorted(closings.keys() & openings.keys()):
        if closings[day] != openings[day]:
            yield Break(account.number, date.fromordinal(day), closings[day], openings[day])
