"""How long something took or takes, as people say it."""

from datetime import timedelta

from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext


def format_duration(seconds: float) -> str:
    """In the one unit that says it best: 45 ms, 3.2 s, 12 s, 4 min, 2 h, 3 days."""
    if seconds < 1:
        return _("{n} ms").format(n=f"{seconds * 1000:.0f}")
    if seconds < 10:
        return _("{n} s").format(n=number_format(seconds, 1))
    value = seconds
    for in_the_next, unit in ((60, _("{n} s")), (60, _("{n} min")), (24, _("{n} h"))):
        if value < 2 * in_the_next:
            return unit.format(n=f"{value:.0f}")
        value /= in_the_next
    return ngettext("{n} day", "{n} days", round(value)).format(n=f"{value:.0f}")


def format_age(age: timedelta) -> str:
    """As a duration, but no finer than a second."""
    seconds = age.total_seconds()
    return _("{n} s").format(n=f"{seconds:.0f}") if seconds < 10 else format_duration(seconds)
