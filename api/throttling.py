"""A rate limit for failed requests: a bad API key, or an object that the key may not read.

Failures are counted in the database, which all web processes share, in a fixed number of rows: callers are
hashed into buckets. Two callers in one bucket share its limit, but only failures count against it, and
successful requests never reach this code.
"""

import time
from hashlib import sha256

from django.db.models import Case, F, When

from api.models import FailedReadCount
from core.best_effort import best_effort_write

FAILURES_PER_MINUTE_MAX = 60
BUCKETS = 16_384


def throttle_seconds(*callers: str, per_minute_max: int | None = None) -> int:
    """Count a failure of each of `callers`; return the seconds to wait if one is over its limit, else 0.

    web/password_limit.py counts password forms the same way, under names that no reader has. A caller over
    the limit causes no further writes. If counting fails the result is 0: the limit only reduces noise, and
    guessing a key is infeasible without it.
    """
    limit = FAILURES_PER_MINUTE_MAX if per_minute_max is None else per_minute_max
    now = int(time.time())
    minute = now // 60
    buckets = sorted({_bucket(caller) for caller in callers})
    rows = FailedReadCount.objects.filter(bucket__in=buckets, minute=minute)
    failures = dict(rows.values_list("bucket", "failures"))
    if any(count >= limit for count in failures.values()):
        return 60 - now % 60
    with best_effort_write("failed read not counted"):
        missing = [FailedReadCount(bucket, minute, 0) for bucket in buckets if bucket not in failures]
        FailedReadCount.objects.bulk_create(missing, ignore_conflicts=True)
        # The order matters: MySQL evaluates a column that the statement has already set with its new value.
        FailedReadCount.objects.filter(bucket__in=buckets).update(
            failures=Case(When(minute=minute, then=F("failures") + 1), default=1), minute=minute
        )
    return 0


def _bucket(caller: str) -> int:
    return int.from_bytes(sha256(caller.encode()).digest()[:4]) % BUCKETS
