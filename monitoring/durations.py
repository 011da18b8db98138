"""How long something took or takes, as people say it."""

from datetime import timedelta


def duration(seconds: float) -> str:
    """In the one unit that says it best: 45 ms, 3.2 s, 12 s, 4 min, 2 h, 3 days."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    value = seconds
    for in_the_next, unit in ((60, "s"), (60, "min"), (24, "h")):
        if value < 2 * in_the_next:
            return f"{value:.0f} {unit}"
        value /= in_the_next
    return f"{value:.0f} days"


def age_of(age: timedelta) -> str:
    """As a duration, but no finer than a second."""
    seconds = age.total_seconds()
    return f"{seconds:.0f} s" if seconds < 10 else duration(seconds)
