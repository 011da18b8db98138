"""Find lines that the bank withdrew: a newer proven statement of their day no longer has them."""

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from heapq import heappop, heappush
from itertools import groupby, pairwise

from django.db.models import Exists, OuterRef, Q

from statements import day_totals
from statements.coverage import Period, proven_balances
from statements.models import LineSighting, OwnAccount, StatementLine

_LINES_AT_ONCE_MAX = 500

Age = tuple[datetime, int]  # of a statement: when it was written, and its primary key


def update_withdrawn(account: OwnAccount, changed: Period) -> int:
    """Mark the lines of `changed` as withdrawn or not; return how many are withdrawn now and were not.

    A line is withdrawn if no statement at least as new as the newest proven one of its day has it. The order
    of import doesn't matter. The caller holds the account's lock.
    """
    withdrawn = 0
    for period, (written, key) in _newest_by_day(account, changed):
        newer = Q(statement__created_at__gt=written) | Q(statement__created_at=written, statement__gte=key)
        is_current = Exists(LineSighting.objects.filter(newer, line=OuterRef("pk")))
        lines = StatementLine.objects.filter(account=account, booked_on__range=(period.first, period.last))
        wrong = list(lines.filter(is_withdrawn=is_current).order_by("pk").values_list("is_withdrawn", "pk"))
        back, gone = ([pk for flag, pk in wrong if flag is wanted] for wanted in (True, False))
        _mark(back, is_withdrawn=False)
        _mark(gone, is_withdrawn=True)
        withdrawn += len(gone)
    return withdrawn


def _newest_by_day(account: OwnAccount, changed: Period) -> Iterator[tuple[Period, Age]]:
    """Yield the parts of `changed` that proven statements cover, each with the age of the newest of these."""
    for age, group in groupby(_newest_by_part(account, changed), key=lambda part: part[2]):
        parts = list(group)
        if age:
            yield Period(date.fromordinal(parts[0][0]), date.fromordinal(parts[-1][1] - 1)), age


def _newest_by_part(account: OwnAccount, changed: Period) -> Iterator[tuple[int, int, Age | None]]:
    """Yield the parts of `changed` in order: first day, day after the last one, and the newest's age.

    A sweep over the first and last days, with the statements of a part in a heap, the newest first.
    """
    proven = proven_balances(account).filter(first_day__lte=changed.last, last_day__gte=changed.first)
    columns = ("first_day", "last_day", "statement__created_at", "statement_id")
    rows = list(proven.order_by("-statement__created_at", "-statement_id").values_list(*columns))
    begin, end = changed.first.toordinal(), changed.last.toordinal() + 1
    spans = [(max(a.toordinal(), begin), min(b.toordinal() + 1, end)) for a, b, _, _ in rows if a and b]
    waiting = sorted(range(len(rows)), key=lambda number: spans[number], reverse=True)
    current: list[int] = []
    for first, after in pairwise(sorted({begin, end, *(day for span in spans for day in span)})):
        while waiting and spans[waiting[-1]][0] <= first:
            heappush(current, waiting.pop())
        while current and spans[current[0]][1] <= first:
            heappop(current)
        yield first, after, rows[current[0]][2:] if current else None


def _mark(keys: Sequence[int], *, is_withdrawn: bool) -> None:
    """Set the flag; what the lines were matched with has to be decided again."""
    for start in range(0, len(keys), _LINES_AT_ONCE_MAX):
        part = StatementLine.objects.filter(pk__in=keys[start : start + _LINES_AT_ONCE_MAX])
        day_totals.undecide(part, is_withdrawn=is_withdrawn)
