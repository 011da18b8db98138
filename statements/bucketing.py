"""Decide the bucket of every line and webhook that the matching left, and propose pairs to operators."""

from collections.abc import Iterable, Sequence
from typing import Any

from django.db.models import Q

from statements import coverage
from statements.coverage import Period
from statements.match_sql import (
    DECIDED,
    LINE_ORDER,
    LINES,
    UNMATCHED,
    UNSETTLED_OR_NEW,
    by_index,
    execute,
    near_condition,
    proposals,
    rows,
    suggestions,
)
from statements.models import Bucket, Decision, Match, MatchKey, OwnAccount, StatementLine
from statements.pairing import Reversible, pair_reversals

ROWS_AT_ONCE = 1000
_UNNOTIFIED = {Bucket.MISSING_WEBHOOK, Bucket.UNIDENTIFIED, Bucket.UNPOSTED}
_TERMS = "{t}.account_id, {t}.inn, {t}.kopecks, {t}.digits_key"
_REVERSED = "l.bucket = 'reversed_by_bank' AND l.digits_key IS NOT NULL"
_REVERSALS = (
    f"SELECT {_TERMS.format(t='l')}, l.date, l.id FROM {LINES} WHERE {_REVERSED} ORDER BY {LINE_ORDER}"
)
# The last one is that which a reversal takes back rather than others.
_ORIGINALS = (
    f"SELECT {_TERMS.format(t='o')}, o.date, o.id"
    f" FROM (SELECT DISTINCT {_TERMS.format(t='l')} FROM {LINES} WHERE {_REVERSED}) l"
    " JOIN statements_statementline o ON o.account_id = l.account_id AND o.inn = l.inn"
    " AND o.kopecks = l.kopecks AND o.digits_key = l.digits_key"
    " WHERE o.is_reversal = FALSE AND o.is_withdrawn = FALSE AND o.bucket <> 'outside'"
    " ORDER BY o.date, o.booked_on, o.fingerprint DESC, o.ordinal DESC"
)


def decide(parameters: dict[str, Any]) -> None:
    """Propose pairs, then set the buckets. The caller holds the locks of all own accounts."""
    execute(proposals(Bucket.AMOUNT_MISMATCH, "inn", "kopecks"), parameters)
    execute(proposals(Bucket.PAYER_MISMATCH, "kopecks", "inn"), parameters)
    execute(suggestions(), parameters)
    _decide_lines()
    _decide_reversals()
    _decide_webhooks(parameters)


def _decide_lines() -> None:
    """Set the buckets of lines that are not matched yet, except reversals that have an original line."""
    live = "SELECT k.state FROM statements_match m JOIN statements_matchkey k ON k.webhook_id = m.webhook_id"
    state = f"({live} WHERE m.live = TRUE AND m.line_id = statements_statementline.id)"
    proposed = "SELECT p.bucket FROM statements_proposal p WHERE p.line_id = statements_statementline.id"
    kept = (
        "SELECT 1 FROM statements_match m WHERE m.live = TRUE AND m.line_id = statements_statementline.id"
        f" AND m.`rank` = {Match.Rank.KEPT}"
    )
    excluded = f"{DECIDED} d.line_id = statements_statementline.id AND d.kind = '{Decision.Kind.EXCLUDED}'"
    execute(
        f"UPDATE statements_statementline{by_index('line_open')} SET bucket = CASE"
        " WHEN inn IS NULL THEN 'excluded'"
        " WHEN is_reversal = TRUE THEN 'reversed_by_bank'"
        f" WHEN EXISTS ({kept}) THEN 'kept'"
        f" ELSE COALESCE(CASE {state} WHEN 'posted' THEN 'matched' WHEN 'unposted' THEN 'unposted' END,"
        f" CASE WHEN EXISTS ({excluded}) THEN 'excluded' END,"
        f" ({proposed}), CASE WHEN inn LIKE '@%%' THEN 'unidentified' ELSE 'missing_webhook' END)"
        f" END WHERE {UNSETTLED_OR_NEW}",
        {},
    )


def _decide_reversals() -> None:
    """Find the credit that each of the bank's reversals takes back.

    If it is in the ledger, the payment is to be reversed too; if not, neither is to be posted.
    """
    StatementLine.objects.filter(reverses__isnull=False).update(reverses=None)
    reversals, originals = (map(Reversible._make, rows(sql, {})) for sql in (_REVERSALS, _ORIGINALS))
    pairs = pair_reversals(reversals, originals)
    found = (StatementLine(pk=reversal, reverses_id=original) for reversal, original in pairs.items())
    StatementLine.objects.bulk_update(found, ["reverses"], batch_size=ROWS_AT_ONCE)
    unnotified = StatementLine.objects.filter(reverses__bucket__in=_UNNOTIFIED)
    keys = [key for pair in unnotified.values_list("pk", "reverses_id") for key in pair]
    _set_bucket(StatementLine, keys, Bucket.EXCLUDED)


def _decide_webhooks(parameters: dict[str, Any]) -> None:
    matched = "SELECT 1 FROM statements_match m WHERE m.live = TRUE AND m.webhook_id ="
    proposed = "SELECT p.bucket FROM statements_proposal p WHERE p.webhook_id ="
    execute(
        f"UPDATE statements_matchkey{by_index('key_bucket')} SET bucket = CASE"
        f" WHEN EXISTS ({matched} statements_matchkey.webhook_id) THEN 'matched'"
        " WHEN state <> 'posted' OR day < %(from_day)s THEN 'outside'"
        f" ELSE COALESCE(({proposed} statements_matchkey.webhook_id), 'awaiting_statement') END"
        f" WHERE bucket = '' OR ({UNMATCHED})",
        parameters,
    )
    awaiting = MatchKey.objects.filter(bucket=Bucket.AWAITING_STATEMENT)
    accounts = OwnAccount.objects.all()
    awaiting.exclude(_within(Period(a.since, a.until or a.since.max) for a in accounts)).update(
        bucket=Bucket.OUTSIDE
    )
    for period in coverage.fully_covered_periods():
        awaiting.filter(day__range=(period.first, period.last)).update(bucket=Bucket.NOT_ON_STATEMENT)
    _find_duplicates()
    without_line = MatchKey.objects.filter(bucket__in=(Bucket.NOT_ON_STATEMENT, Bucket.DUPLICATE))
    kept = without_line.filter(webhook__decision__isnull=False).values_list("pk", flat=True)
    _set_bucket(MatchKey, list(kept), Bucket.KEPT_WEBHOOK)


def _within(periods: Iterable[Period]) -> Q:
    condition = Q(pk__in=[])
    for period in coverage.merge(periods):
        condition |= Q(day__range=(period.first, period.last))
    return condition


def _find_duplicates() -> None:
    """Tell webhooks that another one's line would match from those that no line explains."""
    found = rows(
        "SELECT DISTINCT k.webhook_id FROM statements_matchkey k JOIN statements_statementline l"
        " ON l.inn = k.inn AND l.kopecks = k.kopecks AND l.digits_key = k.digits_key"
        f" WHERE k.bucket = 'not_on_statement' AND l.bucket = 'matched' AND {near_condition()}",
        {},
    )
    _set_bucket(MatchKey, [webhook for (webhook,) in found], Bucket.DUPLICATE)


def _set_bucket(model: type[StatementLine | MatchKey], keys: Sequence[int], bucket: Bucket) -> None:
    for start in range(0, len(keys), ROWS_AT_ONCE):
        model.objects.filter(pk__in=keys[start : start + ROWS_AT_ONCE]).update(bucket=bucket)
