"""Pair rows in order of preference, without comparing each with each.

Both sides prefer their partners in an order that is the same for all. So if one row after the other takes its
first free partner, no two rows are left that would rather have each other, and only these pairs are such.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from operator import attrgetter
from typing import Any, NamedTuple

_Ordered = tuple[int, int]  # ordinal and key of a line


class Candidate(NamedTuple):
    """A line or a webhook, of which the other key is None. Days are numbers; a webhook's two are equal.

    `ordinal` is its place among the lines or the webhooks of equal payer, amount and number.
    """

    inn: str
    kopecks: int
    number: str
    ordinal: int
    day: int
    booked_on: int
    line: int | None
    webhook: int | None


class Reversible(NamedTuple):
    """A bank's reversal, or a credit that one may take back. Dates of one call have one type."""

    account: int
    inn: str
    kopecks: int
    number: str
    date: Any
    line: int


def pair_nearest(ways: Iterable[Sequence[Candidate]], days_max: int) -> Iterator[tuple[int, int]]:
    """Yield lines and their webhooks of equal payer, amount and number, those of the nearest days first.

    `ways` are the candidates by each way to compare payers, best first, and each in order. A line or webhook
    may be in several.
    """
    lines: set[int] = set()
    webhooks: set[int] = set()
    prepared = [([(each.webhook, each) for each in way if each.webhook], _by_day(way)) for way in ways]
    for days, (candidates, lines_by_day) in product(range(days_max + 1), prepared):
        for webhook, (inn, kopecks, number, _, day, *_) in candidates:
            if webhook in webhooks:
                continue
            near = (lines_by_day[inn, kopecks, number, at] for at in (day - days, day + days))
            if first := [found for ordered in near for found in _first_free(ordered, lines)]:
                line = min(first)[1]
                lines.add(line)
                webhooks.add(webhook)
                yield line, webhook


def _by_day(candidates: Sequence[Candidate]) -> dict[Any, list[_Ordered]]:
    """Return the lines by terms and day, the first one last; a line is there by its date and booking day."""
    found: defaultdict[Any, list[_Ordered]] = defaultdict(list)
    for each in reversed(candidates):
        if each.line:
            for day in {each.day, each.booked_on}:
                found[*each[:3], day].append((each.ordinal, each.line))
    return found


def _first_free(lines: list[_Ordered], taken: set[int]) -> list[_Ordered]:
    while lines and lines[-1][1] in taken:
        lines.pop()
    return lines[-1:]


def pair_reversals(reversals: Iterable[Reversible], originals: Iterable[Reversible]) -> dict[int, int]:
    """Return the original line of each reversal: the last one that is free, not later than the reversal.

    Reversals are in order, and originals in the order of their dates.
    """
    by_terms: defaultdict[Any, list[Reversible]] = defaultdict(list)
    for original in originals:
        by_terms[original[:4]].append(original)
    pairs = {}
    for reversal in reversals:
        free = by_terms[reversal[:4]]
        if end := bisect_right(free, reversal.date, key=attrgetter("date")):
            pairs[reversal.line] = free.pop(end - 1).line
    return pairs
