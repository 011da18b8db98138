"""How often a caller asked in vain: with a bad key, or for what its key may not read.

Counted in the database, which every web process shares, in a fixed number of rows: callers are spread over
buckets by a hash, so whatever strangers send, the table stays small. Two callers in one bucket share its
limit, which only those feel who miss as well: whoever hits is neither counted nor looked up here.
"""

import time
from hashlib import sha256

from django.db.models import Case, F, When

from api.models import FailedReadCount
from core.best_effort import best_effort_write

FAILURES_PER_MINUTE_MAX = 60
BUCKETS = 16_384


def throttle_seconds(*callers: str, per_minute_max: int | None = None) -> int:
    """Count a miss of each of `callers`; the seconds to wait if one had its share of this minute, or 0.

    Forms with passwords are counted so, too (web/password_limit.py), under names that no reader has. Who is over
    the limit costs no write any more. Where counting fails the answer is 0: the limit keeps noise down, and
    guessing a key is hopeless without it, too.
    """
    most = FAILURES_PER_MINUTE_MAX if per_minute_max is None else per_minute_max
    now = int(time.time())
    minute = now // 60
    buckets = sorted({_bucket(caller) for caller in callers})
    counted = FailedReadCount.objects.filter(bucket__in=buckets, minute=minute)
    misses = dict(counted.values_list("bucket", "misses"))
    if any(count >= most for count in misses.values()):
        return 60 - now % 60
    with best_effort_write("failed read not counted"):
        fresh = [FailedReadCount(bucket, minute, 0) for bucket in buckets if bucket not in misses]
        FailedReadCount.objects.bulk_create(fresh, ignore_conflicts=True)
        # In this order: MySQL reads a column that it has set already as what it was set to.
        FailedReadCount.objects.filter(bucket__in=buckets).update(
            misses=Case(When(minute=minute, then=F("misses") + 1), default=1), minute=minute
        )
    return 0


def _bucket(caller: str) -> int:
    return int.from_bytes(sha256(caller.encode()).digest()[:4]) % BUCKETS
