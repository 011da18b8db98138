"""How many webhooks came, and how many were applied, in a minute: exactly, and without an index by time.

Such an index would be paid by every webhook at the door. But keys grow with time, so a minute's rows lie
together, and where they begin is found by bisection. Each minute is counted once, when it is over, by the
scheduler, which reads each row one more time for that; the minutes of a day are then a few small rows. To
subtract keys would be cheaper, and wrong: a repeated delivery uses one up, and so does a batch that failed.
"""

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, Q, QuerySet

from core.db import clock
from core.db.pk_by_time import SAMPLE_ROWS, first_pk_at
from ingest.models import Webhook
from ledger.models import Payment
from monitoring.models import MinuteThroughput

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
# Until then what was begun is committed. Also, how far the clocks of machines may be apart for rows of one
# minute to be found beside each other.
SETTLED_AFTER = timedelta(minutes=1)
SECONDS_MAX = 0.5  # the next sweep waits meanwhile

MinuteCounts = tuple[int, int]  # received, applied


def floor_to_minute(moment: datetime) -> datetime:
    """The beginning of its minute."""
    return moment.replace(second=0, microsecond=0)


def record_throughput() -> int:
    """Count what is over and not counted yet of the last day, newest first, for a short time; how many.

    A count replaces what another scheduler has counted: twice does no harm.
    """
    until = time.monotonic() + SECONDS_MAX
    now = clock.database_now()
    newest = floor_to_minute(now - SETTLED_AFTER) - MINUTE
    first = first_minute(now)
    known = set(
        MinuteThroughput.objects.filter(started_at__gt=newest - DAY).values_list("started_at", flat=True)
    )
    past = (newest - n * MINUTE for n in range(24 * 60))
    missing = [minute for minute in past if minute >= first and minute not in known]
    counted = 0
    while missing[counted:] and time.monotonic() < until:
        minute = missing[counted]
        received, applied = count_throughput([minute])[minute]
        MinuteThroughput.objects.update_or_create(
            started_at=minute, defaults={"received": received, "applied": applied}
        )
        counted += 1
    MinuteThroughput.objects.filter(started_at__lt=newest - 2 * DAY).delete()
    return counted


def first_minute(now: datetime) -> datetime:
    """The minute of the first webhook, or of `now` if there is none; before it is nothing to count.

    Of the oldest few, because the first may come from a clock that was ahead.
    """
    oldest = Webhook.objects.filter(pk__gt=0).order_by("pk").values_list("received_at", flat=True)
    return floor_to_minute(min([*oldest[:SAMPLE_ROWS], now]))


def count_throughput(minutes: Sequence[datetime]) -> dict[datetime, MinuteCounts]:
    """Each of these minutes, which lie close together; read from the rows themselves, in one go."""
    received = _counts(Webhook.objects.all(), "received_at", minutes)
    applied = _counts(Payment.objects.all(), "created_at", minutes)
    return {minute: (received[minute], applied[minute]) for minute in minutes}


def _counts(rows: QuerySet[Any], field: str, minutes: Sequence[datetime]) -> dict[datetime, int]:
    if not minutes:
        return {}
    first = first_pk_at(rows, field, min(minutes) - SETTLED_AFTER)
    behind = first_pk_at(rows, field, max(minutes) + MINUTE + SETTLED_AFTER)
    if first >= behind:
        return dict.fromkeys(minutes, 0)
    within = {
        f"minute_{n}": Count("pk", filter=Q(**{f"{field}__gte": minute, f"{field}__lt": minute + MINUTE}))
        for n, minute in enumerate(minutes)
    }
    # A few more rows on each side: beside rows of a bad clock the keys are a little off.
    found = rows.filter(pk__gte=first - SAMPLE_ROWS, pk__lt=behind + SAMPLE_ROWS).aggregate(**within)
    return {minute: found[f"minute_{n}"] for n, minute in enumerate(minutes)}
