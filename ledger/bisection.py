"""Finding a moment in a table without an index by time, because keys grow with time."""

from datetime import datetime
from typing import Any

from django.db.models import QuerySet


def key_at(rows: QuerySet[Any], field: str, moment: datetime) -> int:
    """The key of the first row whose `field` is `moment` or later; one behind the last if there is none.

    As exact as `field` grows with the key. Some twenty look-ups by primary key.
    """
    # pk > 0 says nothing new, but has a server go by the primary key whatever its statistics say.
    told_at = rows.filter(pk__gt=0).order_by("pk").values_list("pk", field)
    newest = told_at.last()
    if newest is None or newest[1] < moment:
        return newest[0] + 1 if newest else 1
    first, behind = 1, newest[0]
    while first < behind:
        middle = (first + behind) // 2
        key, told = told_at.filter(pk__gte=middle)[0]  # there is one: the newest
        if told < moment:
            first = key + 1
        else:
            behind = middle
    return first
