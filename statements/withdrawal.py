"""Find lines that the bank withdrew: a newer proven statement of their day no longer has them."""

from collections.abc import Iterator
from datetime import date
from itertools import pairwise

from django.db.models import Exists, OuterRef, QuerySet

from statements.coverage import ONE_DAY, Period, proven_balances
from statements.models import BankStatement, Bucket, LineSighting, OwnAccount, StatementLine

_LINES_AT_ONCE_MAX = 500


def update_withdrawn(account: OwnAccount, changed: Period) -> int:
    """Mark the lines of `changed` as withdrawn or not; return how many are withdrawn now and were not.

    A line is withdrawn if no statement at least as new as the newest proven one of its day has it. The order
    of import doesn't matter. The caller holds the account's lock.
    """
    withdrawn_before = _withdrawn(account, changed)
    for period, newest in _newest_by_day(account, changed):
        lines = StatementLine.objects.filter(account=account, booked_on__range=(period.first, period.last))
        sightings = LineSighting.objects.filter(line=OuterRef("pk"), statement__in=_at_least(newest))
        is_current = Exists(sightings)
        _mark(lines.filter(~is_current, is_withdrawn=False), is_withdrawn=True)
        _mark(lines.filter(is_current, is_withdrawn=True), is_withdrawn=False)
    return len(_withdrawn(account, changed) - withdrawn_before)


def _withdrawn(account: OwnAccount, period: Period) -> set[int]:
    lines = StatementLine.objects.filter(account=account, booked_on__range=(period.first, period.last))
    return set(lines.filter(is_withdrawn=True).values_list("pk", flat=True))


def _newest_by_day(account: OwnAccount, changed: Period) -> Iterator[tuple[Period, BankStatement]]:
    """Yield the parts of `changed` that proven statements cover, each with the newest of these."""
    balances = [
        (Period(balance.first_day, balance.last_day), balance.statement)
        for balance in proven_balances(account)
        if balance.first_day and balance.last_day
    ]
    balances = [(period, statement) for period, statement in balances if period.overlaps(changed)]
    edges = {changed.first, changed.last + ONE_DAY}
    for period, _ in balances:
        edges |= {max(period.first, changed.first), min(period.last, changed.last) + ONE_DAY}
    days: list[date] = sorted(edges)
    for first, after in pairwise(days):
        newest = next((st for period, st in balances if period.first <= first <= period.last), None)
        if newest:
            yield Period(first, after - ONE_DAY), newest


def _at_least(newest: BankStatement) -> list[int]:
    """Return the primary keys of statements that are not older than `newest`."""
    later = BankStatement.objects.filter(created_at__gte=newest.created_at).values_list("created_at", "pk")
    return [key for created_at, key in later if (created_at, key) >= (newest.created_at, newest.pk)]


def _mark(lines: QuerySet[StatementLine], *, is_withdrawn: bool) -> None:
    """Set the flag; what the lines were matched with has to be decided again."""
    keys = list(lines.order_by("pk").values_list("pk", flat=True))
    for start in range(0, len(keys), _LINES_AT_ONCE_MAX):
        part = StatementLine.objects.filter(pk__in=keys[start : start + _LINES_AT_ONCE_MAX])
        part.update(is_withdrawn=is_withdrawn, bucket=Bucket.UNDECIDED)
