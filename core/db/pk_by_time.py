"""Finding a moment in a table without an index by time, because keys grow with time."""

from datetime import datetime
from typing import Any

from django.db.models import QuerySet

SAMPLE_ROWS = 15  # fewer than half of them may come from a bad clock
Row = tuple[int, datetime]


def first_pk_at(rows: QuerySet[Any], field: str, moment: datetime) -> int:
    """Return the key from which on `field` is `moment` or later; one behind the last if it never is.

    Exact where `field` grows with the key. Each step reads SAMPLE_ROWS neighbours, so that a few rows of a
    bad clock don't mislead it; beside such rows the key may be off by a few. It only says where to begin:
    callers compare `field` as well.
    """
    # pk > 0 says nothing new, but has a server go by the primary key whatever its statistics say.
    stamped = rows.filter(pk__gt=0).order_by("pk").values_list("pk", field)
    newest: list[Row] = list(stamped.reverse()[:SAMPLE_ROWS])
    if all(at < moment for _, at in newest):
        return newest[0][0] + 1 if newest else 1
    first, behind = 1, newest[0][0]
    while behind - first > SAMPLE_ROWS:
        middle = (first + behind) // 2
        sample = sorted(at for _, at in stamped.filter(pk__gte=middle)[:SAMPLE_ROWS])
        if sample[len(sample) // 2] < moment:
            first = middle
        else:
            behind = middle  # the sample may still begin with older rows: the last look goes that far
    return _boundary(list(stamped.filter(pk__gte=first)[: 2 * SAMPLE_ROWS + 1]), moment)


def _boundary(rows: list[Row], moment: datetime) -> int:
    """Return the key before which the fewest rows are younger, and from which on the fewest are older."""
    misplaced = best = sum(at < moment for _, at in rows)
    boundary = rows[0][0]
    for key, at in rows:
        misplaced += -1 if at < moment else 1
        if misplaced < best:
            best, boundary = misplaced, key + 1
    return boundary
