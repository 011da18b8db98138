"""Which days of an account its statements cover, day by day, for the calendar."""

from datetime import date
from enum import StrEnum

from core.days import shifted
from statements.coverage import Period, covered_periods, merge
from statements.models import OwnAccount, StatementBalance

_SATURDAY = 5


class DayState(StrEnum):
    """What the statements say about a day of an account."""

    COVERED = "covered"  # by a proven statement, written after the day
    UNPROVEN = "unproven"  # only by unproven ones
    UNFINISHED = "unfinished"  # by one that was written before the day was over
    MISSING = "missing"  # a working day that is over
    FREE = "free"  # Saturday or Sunday, not covered
    OUTSIDE = "outside"  # before or after the days that are reconciled, or not over yet


def states(account: OwnAccount, period: Period, today: date) -> dict[date, DayState]:
    """Return the state of each day of `period`. Public holidays count as working days."""
    covered = _days(covered_periods(account, period), period)
    finished, begun = _stated(account, period)
    found = {}
    for number in range(period.first.toordinal(), period.last.toordinal() + 1):
        day = date.fromordinal(number)
        if not account.is_active_on(day):
            found[day] = DayState.OUTSIDE
        elif day in covered:
            found[day] = DayState.COVERED
        elif day in finished:
            found[day] = DayState.UNPROVEN
        elif day in begun:
            found[day] = DayState.UNFINISHED
        elif day >= today:
            found[day] = DayState.OUTSIDE
        else:
            found[day] = DayState.FREE if day.weekday() >= _SATURDAY else DayState.MISSING
    return found


def _stated(account: OwnAccount, period: Period) -> tuple[set[date], set[date]]:
    """Return the days that any statement includes: those that were over, and all."""
    balances = StatementBalance.objects.filter(
        account=account, first_day__lte=period.last, last_day__gte=period.first
    ).values_list("first_day", "last_day", "finished_day")
    rows = [
        (first, last, finished or shifted(first, -1)) for first, last, finished in balances if first and last
    ]
    finished = merge(Period(first, min(last, finished)) for first, last, finished in rows)
    begun = merge(Period(first, last) for first, last, _ in rows)
    return _days(finished, period), _days(begun, period)


def _days(periods: list[Period], within: Period) -> set[date]:
    days: set[date] = set()
    for period in periods:
        first, last = max(period.first, within.first), min(period.last, within.last)
        days |= {date.fromordinal(number) for number in range(first.toordinal(), last.toordinal() + 1)}
    return days
