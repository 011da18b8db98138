"""The matching rules as one loop over all pairs: slow, obvious, and independent of the product's SQL."""

import re
from collections.abc import Iterator
from datetime import date, timedelta

from statements.models import MatchKey, StatementLine


def reference_matches() -> set[tuple[int, int, int]]:
    """Return (line, webhook, rank) of ranks 1 to 3 over everything that is stored."""
    lines = list(StatementLine.objects.filter(side="in", is_reversal=False, is_withdrawn=False))
    lines.sort(key=lambda line: (line.booked_on, line.position))
    keys = list(MatchKey.objects.exclude(state="none").select_related("webhook"))
    keys.sort(key=lambda key: (key.state != "posted", key.pk))
    found: dict[int, tuple[int, int]] = {}
    for rank, distance in [(1, 0), (2, 0), *((3, days) for days in range(6))]:
        for key in keys:
            taken = {line for line, _ in found.values()}
            free = [line for line in lines if line.pk not in taken] if key.pk not in found else []
            for line in free:
                if (rank, distance) in agreements(line, key):
                    found[key.pk] = (line.pk, rank)
                    break
    return {(line, webhook, rank) for webhook, (line, rank) in found.items()}


def agreements(line: StatementLine, key: MatchKey) -> Iterator[tuple[int, int]]:
    if (line.inn, line.kopecks) != (key.inn, key.kopecks):
        return
    one, other = plain(line.number), plain(key.webhook.document_number)
    has_equal_digits = bool(digits(one)) and digits(one) == digits(other)
    if one and one == other and key.day == line.date:
        yield 1, 0
    if has_equal_digits and key.day == line.date:
        yield 2, 0
    if (one and one == other) or has_equal_digits:
        yield 3, nearest(key.day, line.date, line.booked_on)


def plain(number: str) -> str:
    return re.sub(r"^0+(?=.)", "", re.sub(r"\s", "", number).casefold())


def digits(number: str) -> str:
    return re.sub(r"^0+(?=.)", "", re.sub(r"[^0-9]", "", number))


def nearest(day: date, *days: date) -> int:
    return min(abs(day - other) for other in days) // timedelta(days=1)
