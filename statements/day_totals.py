"""What the lines of an account and a day come to, by bucket: pages sum a year from its days.

Totals exist only while they are right. What adds a line, or changes what it counts for, deletes the totals
of its day in the same transaction: `drop` and `undecide`, and `dropping_changed` for the lines that a
matching decides again. Only a matching stores totals: `fill`. It holds the locks of all own accounts, and
those writers at least that of the line's. Days without totals are read line by line.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from itertools import groupby
from operator import add
from typing import Any, NamedTuple

import structlog
from django.db import transaction
from django.db.models import QuerySet, Sum

from statements.coverage import Period
from statements.match_sql import UNSETTLED_LINE, by_index, rows
from statements.models import Bucket, DayTotal, OwnAccount, StatementLine

log = structlog.get_logger(__name__)

ALL_DAYS = Period(date.min, date.max)


class Sums(NamedTuple):
    """The number of lines, and kopecks.

    `kopecks` are the rubles that came in, reversals negative, and `ledger` the payments of the lines'
    webhooks as of the last matching. `received` and `paid` are of the lines that the bank didn't withdraw,
    in hundredths of the account's currency; reversals reduce both.
    """

    lines: int = 0
    kopecks: int = 0
    ledger: int = 0
    received: int = 0
    paid: int = 0

    def plus(self, other: "Sums") -> "Sums":
        return Sums(*map(add, self, other))


ByBucket = dict[Bucket, Sums]
Read = dict[tuple[int, date, Bucket], Sums]  # by account and day

_MOVED = "CASE WHEN l.is_withdrawn = TRUE THEN 0 WHEN l.is_reversal = TRUE THEN -l.kopecks ELSE l.kopecks END"
_READ = (
    "SELECT l.account_id, l.booked_on, l.bucket,"
    " COUNT(*), SUM(l.credit_kopecks), COALESCE(SUM(k.kopecks), 0),"
    f" SUM(CASE WHEN l.side = 'in' THEN {_MOVED} ELSE 0 END),"
    f" SUM(CASE WHEN l.side = 'out' THEN {_MOVED} ELSE 0 END)"
    " FROM statements_statementline l{hint}"
    " LEFT JOIN statements_match m ON m.line_id = l.id AND m.live = TRUE"
    " LEFT JOIN statements_proposal p ON p.line_id = l.id"
    " LEFT JOIN statements_matchkey k ON k.webhook_id = COALESCE(m.webhook_id, p.webhook_id)"
    " AND k.state = 'posted' WHERE {condition} GROUP BY l.account_id, l.booked_on, l.bucket"
)
_OF_ACCOUNT = "l.account_id = %(account)s AND l.booked_on BETWEEN %(first)s AND %(last)s"
_DECIDED_AGAIN = f"l.bucket <> '' AND {UNSETTLED_LINE}"


def sums(account: int, period: Period) -> ByBucket:
    """Return what the lines of `account` in `period` come to, also of those that are not matched yet.

    In a snapshot (core/db/snapshot.py), or else a day may be added whose totals are deleted meanwhile.
    """
    kept = _kept(account, period).values_list("bucket").annotate(*map(Sum, Sums._fields)).order_by()
    parts = [{Bucket(bucket): Sums(*figures)} for bucket, *figures in kept]
    for absent in _absent(account, period):
        parts += ({bucket: found} for (_, _, bucket), found in _read(account, absent).items())
    return merged(parts)


def merged(parts: Iterable[ByBucket]) -> ByBucket:
    """Return the sums of `parts`."""
    total: ByBucket = {}
    for part in parts:
        total |= {bucket: found.plus(total.get(bucket, Sums())) for bucket, found in part.items()}
    return total


def undecide(lines: QuerySet[StatementLine], **changes: bool) -> None:
    """Have the next matching decide `lines`, and make further `changes` to them."""
    drop(lines.order_by().values_list("account_id", "booked_on").distinct())
    lines.update(bucket=Bucket.UNDECIDED, **changes)


def drop(days: Iterable[tuple[int, date]]) -> None:
    """Delete the totals of accounts and days. The caller holds these accounts' locks, in a transaction."""
    for account, of_account in groupby(sorted(days), key=lambda day: day[0]):
        DayTotal.objects.filter(account=account, day__in=[day for _, day in of_account]).delete()


@contextmanager
def dropping_changed() -> Iterator[None]:
    """Delete the totals of days whose lines a matching decides in another way than before."""
    before = _select(_DECIDED_AGAIN, {}, by_index("line_open"))
    yield
    after = _select(_DECIDED_AGAIN, {}, by_index("line_open"))
    drop({(account, day) for (account, day, _bucket), _ in before.items() ^ after.items()})


def fill() -> None:
    """Store the totals that are absent, except of days with a line that is not decided.

    The caller holds the locks of all own accounts, in a transaction.
    """
    for account in OwnAccount.objects.values_list("pk", flat=True):
        for period in _absent(account, ALL_DAYS):
            found = _read(account, period)
            undecided = {day for _, day, bucket in found if bucket == Bucket.UNDECIDED}
            DayTotal.objects.bulk_create(
                DayTotal(account_id=account, day=day, bucket=bucket, **each._asdict())
                for (_, day, bucket), each in found.items()
                if day not in undecided
            )


def repair() -> int:
    """Delete totals that are wrong, and return by how many kopecks: 0 unless this program is wrong.

    A month at a time, under the lock of its account.
    """
    return sum(
        _repair(account, period)
        for account in OwnAccount.objects.values_list("pk", flat=True)
        for period in _months(_days(_kept(account, ALL_DAYS), "day"))
    )


def _repair(account: int, period: Period) -> int:
    with transaction.atomic():
        OwnAccount.objects.select_for_update().get(pk=account)
        kept: Read = {
            (account, day, Bucket(bucket)): Sums(*figures)
            for day, bucket, *figures in _kept(account, period).values_list("day", "bucket", *Sums._fields)
        }
        days = {day for _, day, _ in kept}
        found = {key: each for key, each in _read(account, period).items() if key[1] in days}
        wrong = [key for key, _ in kept.items() ^ found.items()]
        drop((account, day) for _, day, _ in wrong)
    for key in sorted(set(wrong)):
        log.error("totals of a day are wrong", key=key, kept=kept.get(key), lines=found.get(key))
    nothing = Sums()
    return sum(
        abs(one - other)
        for key in set(wrong)
        for one, other in zip(kept.get(key, nothing)[1:], found.get(key, nothing)[1:], strict=True)
    )


def _kept(account: int, period: Period) -> QuerySet[DayTotal]:
    return DayTotal.objects.filter(account=account, day__range=(period.first, period.last))


def _absent(account: int, period: Period) -> Iterator[Period]:
    """Yield the days with lines that have no totals, in parts of at most a month."""
    kept = set(_days(_kept(account, period), "day"))
    lines = StatementLine.objects.filter(account=account, booked_on__range=(period.first, period.last))
    for is_kept, days in groupby(_days(lines, "booked_on"), key=kept.__contains__):
        if not is_kept:
            yield from _months(days)


def _days(found: QuerySet[Any], field: str) -> list[date]:
    """Return the days of `found`, which are of one account, in order.

    With both columns of an index, the server goes from each day to the next without the rows between.
    """
    return [day for _, day in found.order_by("account_id", field).values_list("account_id", field).distinct()]


def _months(days: Iterable[date]) -> Iterator[Period]:
    """Yield the first and last of the days of each month: a statement over a year may exceed read_timeout."""
    for _, of_month in groupby(days, key=lambda day: (day.year, day.month)):
        ordered = list(of_month)
        yield Period(ordered[0], ordered[-1])


def _read(account: int, period: Period) -> Read:
    return _select(_OF_ACCOUNT, {"account": account, "first": period.first, "last": period.last})


def _select(condition: str, parameters: dict[str, Any], hint: str = "") -> Read:
    sql = _READ.format(condition=condition, hint=hint)
    return {
        (account, day, Bucket(bucket)): Sums(*map(int, figures))
        for account, day, bucket, *figures in rows(sql, parameters)
    }
