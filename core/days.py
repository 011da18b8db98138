"""Days in the calendar: bounds that people's input keeps, and arithmetic that no day overflows."""

from datetime import date

DAY_MIN, DAY_MAX = date(1900, 1, 1), date(2999, 12, 31)


def is_plausible(day: date) -> bool:
    """Return False for days like 01.01.0001, which is 1C's empty date."""
    return DAY_MIN <= day <= DAY_MAX


def shifted(day: date, days: int) -> date:
    """Return the day `days` later, at most date.max and at least date.min."""
    number = day.toordinal() + days
    return date.fromordinal(min(max(number, date.min.toordinal()), date.max.toordinal()))
