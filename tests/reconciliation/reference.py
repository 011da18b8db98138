"""The matching rules and the sums of days as loops: slow, obvious, and independent of the product's SQL."""

import re
from collections.abc import Iterator
from datetime import date, timedelta

from core.db.snapshot import snapshot
from statements import day_totals
from statements.day_totals import ByBucket, Read, Sums
from statements.models import Bucket, DayTotal, Match, MatchKey, OwnAccount, Proposal, StatementLine


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


def assert_totals_are_right() -> None:
    """The stored totals of each day are those of its lines, and what pages sum is that of all lines."""
    with snapshot():
        expected = sums_of_lines()
        rows = DayTotal.objects.values_list("account_id", "day", "bucket", *Sums._fields)
        stored: Read = {(account, day, Bucket(bucket)): Sums(*sums) for account, day, bucket, *sums in rows}
        accounts = OwnAccount.objects.values_list("pk", flat=True)
        summed = {account: day_totals.sums(account, day_totals.ALL_DAYS) for account in accounts}
    days = {key[:2] for key in stored}
    assert stored == {key: found for key, found in expected.items() if key[:2] in days}
    total: dict[int, ByBucket] = {account: {} for account in summed}
    for (account, _, bucket), found in expected.items():
        total[account][bucket] = total[account].get(bucket, Sums()).plus(found)
    assert summed == total


def sums_of_lines() -> Read:
    """Return the sums of each account, day and bucket, a line at a time."""
    posted = dict(MatchKey.objects.filter(state="posted").values_list("pk", "kopecks"))
    webhooks = dict(Proposal.objects.values_list("line_id", "webhook_id"))
    webhooks |= dict(Match.objects.filter(live=True).values_list("line_id", "webhook_id"))
    sums: Read = {}
    for line in StatementLine.objects.all():
        key = line.account_id, line.booked_on, Bucket(line.bucket)
        moved = 0 if line.is_withdrawn else -line.kopecks if line.is_reversal else line.kopecks
        received, paid = (moved, 0) if line.side == "in" else (0, moved)
        ledger = posted.get(webhooks.get(line.pk, 0), 0)
        found = Sums(1, line.credit_kopecks, ledger, received, paid)
        sums[key] = sums.get(key, Sums()).plus(found)
    return sums
