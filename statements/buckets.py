"""The result of a reconciliation: count, sum and list of each bucket, and the identity of ledger and bank.

Everything is as of the last matching (statements/matching.py), and read by indexes on bucket and day. Pages
give what is known of the days' lines (statements/day_totals.py) instead: no line is read then.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date

from django.db.models import Count, F, Q, QuerySet, Sum

from statements.day_totals import ByBucket, Sums
from statements.match_sql import rows
from statements.models import Bucket, Match, MatchKey, OwnAccount, Proposal, StatementLine

LINE_BUCKETS = (
    *(Bucket.MATCHED, Bucket.UNPOSTED, Bucket.MISSING_WEBHOOK, Bucket.UNIDENTIFIED),
    *(Bucket.AMOUNT_MISMATCH, Bucket.PAYER_MISMATCH, Bucket.REVERSED_BY_BANK, Bucket.SUGGESTED),
    *(Bucket.EXCLUDED, Bucket.KEPT),
)
WEBHOOK_BUCKETS = (
    *(Bucket.DUPLICATE, Bucket.NOT_ON_STATEMENT, Bucket.AWAITING_STATEMENT, Bucket.KEPT_WEBHOOK),
)
SETTLED = (*(Bucket.MATCHED, Bucket.EXCLUDED, Bucket.AWAITING_STATEMENT, Bucket.KEPT, Bucket.KEPT_WEBHOOK),)
WAITING_LINES = tuple(each for each in LINE_BUCKETS if each not in SETTLED)
WAITING_WEBHOOKS = tuple(each for each in WEBHOOK_BUCKETS if each not in SETTLED)
_SUBTRACTED = (Bucket.MISSING_WEBHOOK, Bucket.UNIDENTIFIED, Bucket.UNPOSTED, Bucket.EXCLUDED)


@dataclass(frozen=True, slots=True)
class Scope:
    """The days, both included, and the account that are reconciled; None: all.

    A webhook doesn't say to which account its money came. So those that no line explains belong to no
    account, and are only in a scope of all accounts.
    """

    account: str | None = None
    first: date | None = None
    last: date | None = None

    def days(self, field: str) -> Q:
        condition = Q()
        if self.first:
            condition &= Q(**{f"{field}__gte": self.first})
        if self.last:
            condition &= Q(**{f"{field}__lte": self.last})
        return condition


@dataclass(frozen=True, slots=True)
class Total:
    """The number of lines or webhooks in a bucket, and their sum in kopecks."""

    count: int = 0
    kopecks: int = 0


@dataclass(frozen=True, slots=True)
class Identity:
    """ledger − bank = the sum of `terms`, in kopecks. `unexplained` is what is wrong with that: 0."""

    ledger: int
    bank: int
    terms: dict[Bucket, int]

    @property
    def difference(self) -> int:
        return self.ledger - self.bank

    @property
    def unexplained(self) -> int:
        return self.difference - sum(self.terms.values())


def lines(scope: Scope, *buckets: Bucket) -> QuerySet[StatementLine]:
    """Return the lines of `scope` that are in one of `buckets`."""
    found = StatementLine.objects.filter(scope.days("booked_on"), bucket__in=buckets)
    if scope.account is None:
        return found
    # No join: the server would begin at the account, and sort all lines for a page of them.
    account = OwnAccount.objects.filter(number=scope.account).values("pk")[:1]
    return found.filter(account_id=account)


def webhooks(scope: Scope, *buckets: Bucket) -> QuerySet[MatchKey]:
    """Return the webhooks of `scope` that no line explains and that are in one of `buckets`."""
    found = MatchKey.objects.filter(scope.days("day"), bucket__in=buckets)
    return found.none() if scope.account else found


def totals(scope: Scope, sums: ByBucket | None = None) -> dict[Bucket, Total]:
    """Return the total of each bucket; of lines it is of rubles that came in, reversals negative.

    `sums` are those of the scope's lines, if they are known.
    """
    of_webhooks = webhooks(scope, *WEBHOOK_BUCKETS).values_list("bucket")
    found = list(of_webhooks.annotate(Count("pk"), Sum("kopecks")).order_by())
    if sums is None:
        of_lines = lines(scope, *LINE_BUCKETS).values_list("bucket")
        found += of_lines.annotate(Count("pk"), Sum("credit_kopecks")).order_by()
    else:
        found += [(each, *sums[each][:2]) for each in LINE_BUCKETS if each in sums]
    empty = {bucket: Total() for bucket in (*LINE_BUCKETS, *WEBHOOK_BUCKETS)}
    return empty | {Bucket(bucket): Total(count, kopecks) for bucket, count, kopecks in found}


def identity(
    scope: Scope, total: Mapping[Bucket, Total] | None = None, sums: ByBucket | None = None
) -> Identity:
    """Return what explains the difference of ledger and bank.

    `total` are the scope's totals, if they are known. With the `sums` of its lines, the ledger is what the
    last matching read of it; every night reads the payments.
    """
    total = total or totals(scope, sums)
    terms = {bucket: total[bucket].kopecks for bucket in WEBHOOK_BUCKETS}
    terms[Bucket.REVERSED_BY_BANK] = -total[Bucket.REVERSED_BY_BANK].kopecks
    proposed = Proposal.objects.filter(line__in=lines(scope, Bucket.AMOUNT_MISMATCH))
    terms[Bucket.AMOUNT_MISMATCH] = _notified_minus_booked(proposed)
    kept = Match.objects.filter(live=True, line__in=lines(scope, Bucket.KEPT))
    terms[Bucket.KEPT] = _notified_minus_booked(kept)
    terms |= {bucket: -total[bucket].kopecks for bucket in _SUBTRACTED}
    bank = sum(total[bucket].kopecks for bucket in LINE_BUCKETS)
    on_ledger = ledger(scope) if sums is None else _as_matched(sums, total)
    return Identity(on_ledger, bank, terms)


def _as_matched(sums: ByBucket, total: Mapping[Bucket, Total]) -> int:
    """Return the payments for lines and webhooks as of the last matching, in kopecks."""
    of_lines = sum(sums.get(bucket, Sums()).ledger for bucket in LINE_BUCKETS)
    return of_lines + sum(total[bucket].kopecks for bucket in WEBHOOK_BUCKETS)


def ledger(scope: Scope) -> int:
    """Return the sum of the payments that stand for the lines and webhooks of `scope`, in kopecks."""
    on_line = "JOIN statements_matchkey k ON k.webhook_id = m.webhook_id"
    matched = f"JOIN statements_match m ON m.line_id = l.id AND m.live = TRUE {on_line}"
    proposed = f"JOIN statements_proposal m ON m.line_id = l.id {on_line}"
    lines_in_scope = _in_scope(scope, "l.bucket", LINE_BUCKETS, "l.booked_on")
    found = [
        _posted(f"statements_statementline l {joined}", lines_in_scope, scope)
        for joined in (matched, proposed)
    ]
    if not scope.account:
        webhooks_in_scope = _in_scope(scope, "k.bucket", WEBHOOK_BUCKETS, "k.day")
        found.append(_posted("statements_matchkey k", webhooks_in_scope, scope))
    return sum(found)


def _in_scope(scope: Scope, bucket: str, names: Collection[Bucket], day: str) -> str:
    """Return the condition in SQL, with the parameters of `_posted`."""
    listed = ", ".join(f"'{name}'" for name in names)
    conditions = [f"{bucket} IN ({listed})"]
    if scope.first:
        conditions.append(f"{day} >= %(first)s")
    if scope.last:
        conditions.append(f"{day} <= %(last)s")
    if scope.account:
        conditions.append(
            "l.account_id = (SELECT a.id FROM statements_ownaccount a WHERE a.number = %(account)s)"
        )
    return " AND ".join(conditions)


def _posted(keys: str, condition: str, scope: Scope) -> int:
    """Sum by joins, as for subqueries MariaDB reads all payments."""
    ((kopecks,),) = rows(
        f"SELECT COALESCE(SUM(p.amount_kopecks), 0) FROM {keys} JOIN ledger_payment p ON p.id = k.payment_id"
        f" LEFT JOIN ledger_payment r ON r.reverses_id = p.id WHERE r.id IS NULL AND {condition}",
        {"first": scope.first, "last": scope.last, "account": scope.account},
    )
    return int(kopecks)


def partners(found: Collection[StatementLine]) -> dict[int, int]:
    """Return the webhook that each of the lines `found` is matched with or proposed for, by primary keys.

    That of a bank's reversal is the webhook of the line it takes back.
    """
    originals = {line.pk: line.reverses_id or line.pk for line in found}
    matched = Match.objects.filter(live=True, line__in=originals.values())
    proposed = Proposal.objects.filter(line__in=originals.values())
    by_line = dict(proposed.values_list("line_id", "webhook_id"))
    by_line |= dict(matched.values_list("line_id", "webhook_id"))
    return {line: by_line[original] for line, original in originals.items() if original in by_line}


def count_waiting(scope: Scope) -> int:
    """Return how many lines and webhooks wait for an operator."""
    return lines(scope, *WAITING_LINES).count() + webhooks(scope, *WAITING_WEBHOOKS).count()


def _notified_minus_booked(pairs: QuerySet[Proposal] | QuerySet[Match]) -> int:
    difference: int = pairs.aggregate(
        kopecks=Sum(F("webhook__match_key__kopecks") - F("line__kopecks"), default=0)
    )["kopecks"]
    return difference
