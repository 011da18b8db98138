"""Format durations for people."""

from datetime import timedelta

from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext


def format_duration(seconds: float) -> str:
    """Return the duration in its most suitable unit: 45 ms, 3.2 s, 12 s, 4 min, 2 h, 3 days."""
    if seconds < 1:
        return _("{n} ms").format(n=f"{seconds * 1000:.0f}")
    if seconds < 10:
        return _("{n} s").format(n=number_format(seconds, 1))
    value = seconds
    for per_next_unit, unit in ((60, _("{n} s")), (60, _("{n} min")), (24, _("{n} h"))):
        if value < 2 * per_next_unit:
            return unit.format(n=f"{value:.0f}")
        value /= per_next_unit
    return ngettext("{n} day", "{n} days", round(value)).format(n=f"{value:.0f}")


def format_age(age: timedelta) -> str:
    """Return the age like a duration, but in whole seconds at least."""
    seconds = age.total_seconds()
    return _("{n} s").format(n=f"{seconds:.0f}") if seconds < 10 else format_duration(seconds)
