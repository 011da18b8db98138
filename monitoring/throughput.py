"""Count received and applied webhooks per minute, exactly and without an index by time.

Every webhook would pay for such an index when it is stored. But primary keys grow with time, so the rows of
a minute lie together, and bisection finds the first one. The scheduler counts each minute once, after its
end, and so reads each row one additional time; a day is then 1440 small rows. Subtracting keys would be
cheaper but wrong: a duplicate delivery and a rolled-back batch each use up a key.
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
# Transactions have committed by then. Also the greatest difference between machines' clocks at which the rows
# of a minute are still found together.
SETTLED_AFTER = timedelta(minutes=1)
SECONDS_MAX = 0.5  # the next sweep waits meanwhile

MinuteCounts = tuple[int, int]  # received, applied


def floor_to_minute(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


def record_throughput() -> int:
    """Count the last day's complete minutes that are not stored yet, newest first, for up to SECONDS_MAX.

    Return the number of minutes. It is idempotent: a second scheduler's count replaces the first one's.
    """
    until = time.monotonic() + SECONDS_MAX
    now = clock.database_now()
    newest = floor_to_minute(now - SETTLED_AFTER) - MINUTE
    first = first_minute(now)
    stored = MinuteThroughput.objects.filter(started_at__gt=newest - DAY)
    known = set(stored.values_list("started_at", flat=True))
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
    """Return the minute of the first webhook, or of `now` without any.

    It is the minimum of the oldest few, because the first row's clock may have been ahead.
    """
    oldest = Webhook.objects.filter(pk__gt=0).order_by("pk").values_list("received_at", flat=True)
    return floor_to_minute(min([*oldest[:SAMPLE_ROWS], now]))


def count_throughput(minutes: Sequence[datetime]) -> dict[datetime, MinuteCounts]:
    """Count the rows of these minutes, which should be close to one another, in one query per table."""
    received = _count_rows(Webhook.objects.all(), "received_at", minutes)
    applied = _count_rows(Payment.objects.all(), "created_at", minutes)
    return {minute: (received[minute], applied[minute]) for minute in minutes}


def _count_rows(rows: QuerySet[Any], field: str, minutes: Sequence[datetime]) -> dict[datetime, int]:
    if not minutes:
        return {}
    first = first_pk_at(rows, field, min(minutes) - SETTLED_AFTER)
    end = first_pk_at(rows, field, max(minutes) + MINUTE + SETTLED_AFTER)
    if first >= end:
        return dict.fromkeys(minutes, 0)
    aggregates = {
        f"minute_{n}": Count("pk", filter=Q(**{f"{field}__gte": minute, f"{field}__lt": minute + MINUTE}))
        for n, minute in enumerate(minutes)
    }
    # Next to rows with a wrong clock the keys are slightly off, so include a few more rows on each side.
    found = rows.filter(pk__gte=first - SAMPLE_ROWS, pk__lt=end + SAMPLE_ROWS).aggregate(**aggregates)
    return {minute: found[f"minute_{n}"] for n, minute in enumerate(minutes)}
