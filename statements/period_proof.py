"""Prove a period of an account: opening balance + received − paid out = closing balance.

A day without a balance of its own in any statement gets it from the nearest one before, plus the lines
between; the closing balance comes from the nearest one after, less the lines between. So the two sides meet
only if the lines of whole statements add up.
"""

from dataclasses import dataclass
from datetime import date

from django.db.models import F

from core.days import shifted
from statements.coverage import ONE_DAY, Break, Period, breaks_of
from statements.covered_days import DayState, states
from statements.models import OwnAccount, StatementBalance, StatementLine
from statements.turnover import signed_sum

_NEWEST_LAST = ("statement__created_at", "statement_id")


@dataclass(frozen=True, slots=True)
class PeriodProof:
    """The sums of an account in a period, in hundredths of its currency, and what is wrong with them.

    `missing` are working days that are over and that no proven statement covers, `unproven` those that only
    unproven ones cover.
    """

    opening: int | None
    received: int
    paid: int
    closing: int | None
    missing: list[date]
    unproven: list[date]
    breaks: list[Break]

    @property
    def difference(self) -> int | None:
        if self.opening is None or self.closing is None:
            return None
        return self.opening + self.received - self.paid - self.closing

    @property
    def holds(self) -> bool:
        return self.difference == 0 and not (self.missing or self.unproven or self.breaks)


def prove(account: OwnAccount, period: Period, today: date) -> PeriodProof:
    """Return the proof of `period`, as all statements of the account and their lines say."""
    received, paid = _turnover(account, period.first, period.last)
    days = states(account, period, today)
    return PeriodProof(
        opening=_balance_before(account, period.first),
        received=received,
        paid=paid,
        closing=_balance_after(account, period.last),
        missing=[day for day, state in days.items() if state == DayState.MISSING],
        unproven=[day for day, state in days.items() if state == DayState.UNPROVEN],
        breaks=[gap for gap in breaks_of(account) if period.first - ONE_DAY <= gap.day <= period.last],
    )


def _balance_before(account: OwnAccount, day: date) -> int | None:
    """Return the balance at the beginning of `day`."""
    with_day = StatementBalance.objects.filter(account=account, first_day__isnull=False)
    openings = with_day.filter(opening__isnull=False)
    before = openings.filter(first_day__lte=day).order_by("first_day", *_NEWEST_LAST)
    after = openings.filter(first_day__gt=day).order_by("-first_day", *_NEWEST_LAST)
    nearest = before.last() or after.last()
    if nearest is None or nearest.first_day is None or nearest.opening is None:
        return None
    return nearest.opening + _moved(account, nearest.first_day, day)


def _balance_after(account: OwnAccount, day: date) -> int | None:
    """Return the balance at the end of `day`; of a day after all statements, that of the last one."""
    closings = StatementBalance.objects.filter(account=account, closing__isnull=False, last_day__isnull=False)
    after = closings.filter(last_day__gte=day).order_by("-last_day", *_NEWEST_LAST)
    before = closings.filter(last_day__lt=day).order_by("last_day", *_NEWEST_LAST)
    nearest = after.filter(finished_day=F("last_day")).last() or after.last() or before.last()
    if nearest is None or nearest.last_day is None or nearest.closing is None:
        return None
    return nearest.closing + _moved(account, shifted(nearest.last_day, 1), shifted(day, 1))


def _moved(account: OwnAccount, start: date, end: date) -> int:
    """Return what the lines add to the balance from the beginning of `start` to that of `end`."""
    received, paid = _turnover(account, min(start, end), shifted(max(start, end), -1))
    return received - paid if start <= end else paid - received


def _turnover(account: OwnAccount, first: date, last: date) -> tuple[int, int]:
    """Return what was received and paid out; the bank's reversals reduce both."""
    if first > last:
        return 0, 0
    lines = StatementLine.objects.filter(
        account=account, booked_on__range=(first, last), is_withdrawn=False
    ).order_by()
    by_side = dict(lines.values_list("side").annotate(total=signed_sum()))
    return by_side.get(StatementLine.Side.CREDIT, 0), by_side.get(StatementLine.Side.DEBIT, 0)
