"""A year of an account as months of days, each with what the statements say about it."""

import calendar
from dataclasses import dataclass
from datetime import date
from typing import Any

from django.urls import reverse
from django.utils.dates import MONTHS, WEEKDAYS_ABBR
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy

from statements.coverage import Period
from statements.covered_days import DayState, states
from statements.models import OwnAccount, StatementBalance
from statements.standing import today

YEAR_MIN, YEAR_MAX = 1990, 2999
LABELS = {
    DayState.COVERED: gettext_lazy("proven by a bank statement"),
    DayState.UNPROVEN: gettext_lazy("a bank statement that is not proven"),
    DayState.UNFINISHED: gettext_lazy("the bank statement was written before the day was over"),
    DayState.MISSING: gettext_lazy("no bank statement of this working day"),
    DayState.FREE: gettext_lazy("Saturday or Sunday without a bank statement"),
    DayState.OUTSIDE: gettext_lazy("not reconciled"),
}


@dataclass(frozen=True, slots=True)
class Day:
    """A day and what the statements say about it."""

    number: int
    state: DayState
    url: str

    @property
    def label(self) -> str | Promise:
        return LABELS[self.state]


@dataclass(frozen=True, slots=True)
class Month:
    """A month in weeks from Monday; None is a day of another month."""

    name: str | Promise
    url: str
    weeks: list[list[Day | None]]


def context(account: OwnAccount, year_text: str) -> dict[str, Any]:
    """Return the template's context; without a year, that of the newest statement."""
    this_day = today()
    year = _year(account, year_text, this_day)
    days = states(account, Period(date(year, 1, 1), date(year, 12, 31)), this_day)
    shown = set(days.values())
    return {
        "year": year,
        "previous_year": year - 1 if year - 1 >= max(account.since.year, YEAR_MIN) else None,
        "next_year": year + 1 if year + 1 <= this_day.year else None,
        "weekdays": list(WEEKDAYS_ABBR.values()),
        "months": [
            _month(account, year, number, days)
            for number in sorted({day.month for day, state in days.items() if state != DayState.OUTSIDE})
        ],
        "legend": [(state.value, label) for state, label in LABELS.items() if state in shown],
    }


def _year(account: OwnAccount, text: str, today: date) -> int:
    if text.isascii() and text.isdigit() and len(text) == len(str(YEAR_MAX)):
        return min(max(int(text), YEAR_MIN), YEAR_MAX)
    newest = StatementBalance.objects.filter(account=account, last_day__isnull=False).order_by("-last_day")
    last_day = newest.values_list("last_day", flat=True).first()
    return min(max((last_day or today).year, YEAR_MIN), YEAR_MAX)


def _month(account: OwnAccount, year: int, month: int, days: dict[date, DayState]) -> Month:
    def day(number: int) -> Day | None:
        if not number:
            return None
        at = date(year, month, number)
        return Day(number, days[at], _url(account, at, at))

    last = date(year, month, calendar.monthrange(year, month)[1])
    weeks = [[day(number) for number in week] for week in calendar.monthcalendar(year, month)]
    return Month(MONTHS[month], _url(account, date(year, month, 1), last), weeks)


def _url(account: OwnAccount, first: date, last: date) -> str:
    return f"{reverse('admin:statements_reconciliation')}?account={account.pk}&first={first}&last={last}"
