"""Prove a period of an account: opening balance + received − paid out = closing balance.

A day without a balance of its own in any statement gets it from the nearest one before, plus the lines
between; the closing balance comes from the nearest one after, less the lines between. So the two sides meet
only if the lines of whole statements add up.
"""

from dataclasses import dataclass
from datetime import date

from django.db.models import F

from core.days import shifted
from statements import day_totals
from statements.coverage import ONE_DAY, Break, Period, breaks_of
from statements.covered_days import DayState, states
from statements.day_totals import ByBucket
from statements.models import OwnAccount, StatementBalance

_NEWEST_LAST = ("statement__created_at", "statement_id")


@dataclass(frozen=True, slots=True)
class PeriodProof:
    """The sums of an account in a period, in hundredths of its currency, and what is wrong with them.

    `missing` are working days that are over and that no proven statement covers, `unproven` those that only
    unproven ones cover.
    """

    opening: int | None
    closing: int | None
    sums: ByBucket  # of the lines
    missing: list[date]
    unproven: list[date]
    breaks: list[Break]

    @property
    def received(self) -> int:
        return sum(found.received for found in self.sums.values())

    @property
    def paid(self) -> int:
        return sum(found.paid for found in self.sums.values())

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
    days = states(account, period, today)
    return PeriodProof(
        opening=_balance_before(account, period.first),
        closing=_balance_after(account, period.last),
        sums=day_totals.sums(account.pk, period),
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
    if start == end:
        return 0
    between = day_totals.sums(account.pk, Period(min(start, end), shifted(max(start, end), -1)))
    moved = sum(found.received - found.paid for found in between.values())
    return moved if start < end else -moved
