"""Binary search for a time in a table whose primary keys grow with time, without an index by time."""

from datetime import datetime
from typing import Any

from django.db.models import QuerySet

SAMPLE_ROWS = 15  # fewer than half of them may come from a bad clock
Row = tuple[int, datetime]


def first_pk_at(rows: QuerySet[Any], field: str, moment: datetime) -> int:
    """Return the key from which on `field` is `moment` or later, or the last key plus one.

    The result is exact if `field` grows with the key. Each step compares the median of SAMPLE_ROWS
    neighbours, so that a few rows of a bad clock don't mislead the search; next to such rows the key may be
    off by a few. Callers use it as a starting point and compare `field` as well.
    """
    # pk > 0 selects everything, but makes the server use the primary key regardless of its statistics.
    stamped = rows.filter(pk__gt=0).order_by("pk").values_list("pk", field)
    newest: list[Row] = list(stamped.reverse()[:SAMPLE_ROWS])
    if all(at < moment for _, at in newest):
        return newest[0][0] + 1 if newest else 1
    low, high = 1, newest[0][0]
    while high - low > SAMPLE_ROWS:
        middle = (low + high) // 2
        sample = sorted(at for _, at in stamped.filter(pk__gte=middle)[:SAMPLE_ROWS])
        if sample[len(sample) // 2] < moment:
            low = middle
        else:
            high = middle  # the sample may still begin with older rows; the final step covers them
    return _boundary(list(stamped.filter(pk__gte=low)[: 2 * SAMPLE_ROWS + 1]), moment)


def _boundary(rows: list[Row], moment: datetime) -> int:
    """Return the key that minimizes the number of later rows before it and earlier rows from it on."""
    misplaced = best = sum(at < moment for _, at in rows)
    boundary = rows[0][0]
    for key, at in rows:
        misplaced += -1 if at < moment else 1
        if misplaced < best:
            best, boundary = misplaced, key + 1
    return boundary
