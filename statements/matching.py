"""Match the lines of bank statements with webhooks: exact, deterministic, one to one.

1. Payer, amount and plain number are equal, and the webhook's day is the statement's date.
2. The same with the number's digits.
3. Payer, amount and number or its digits are equal, at most five days from date or booking day, the nearest
   first.

Money has no tolerance, and payers are never mixed. What is left is proposed to operators or ends in a bucket
(statements/bucketing.py). The result depends on what is stored, not on the order in which it came: matches
that something new may change are taken back and found again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet

from core.days import shifted
from core.db import transactions
from statements import bucketing, day_totals, match_sql, suspects, webhook_terms
from statements.match_sql import LINES, PAYERS, UNMATCHED, UNSETTLED, by_index, execute, joined_in_order, rows
from statements.models import ActionItem, Bucket, Match, MatchKey, OwnAccount, Proposal, StatementLine
from statements.pairing import Candidate, pair_nearest

# A payment's document date may be weeks before the first line that is reconciled.
WEBHOOK_DAYS_BEFORE = 92
ROWS_AT_ONCE = 1000
TRIES_MAX = 12  # each may wait for the lock of an import for seconds


@dataclass(frozen=True, slots=True)
class Matched:
    """How many webhooks were new to the matching, and how many matches it found, by rank."""

    new_webhooks: int
    by_rank: dict[int, int]


def is_due() -> bool:
    """Return whether a line is undecided, or the webhook of one that was not posted has been settled since.

    What an action settles waits for the action's end. New webhooks alone are no reason: they come all the
    time, and change nothing before the next import.
    """
    if undecided().exists():
        return True
    if ActionItem.objects.filter(outcome=ActionItem.Outcome.PENDING).exists():
        return False
    unposted = StatementLine.objects.filter(bucket=Bucket.UNPOSTED, matches__live=True)
    return unposted.exclude(matches__webhook__status__in=webhook_terms.OPEN).exists()


def undecided() -> QuerySet[StatementLine]:
    """Return the undecided lines, except those that running actions have settled.

    A matching reads all that is open, so one for each chunk would take the square of an action's items.
    """
    items = ActionItem.objects.filter(outcome=ActionItem.Outcome.PENDING).order_by()
    running = list(items.values_list("action_id", flat=True).distinct())
    settled = ActionItem.objects.filter(action__in=running, line=OuterRef("pk"))
    done = settled.exclude(outcome=ActionItem.Outcome.PENDING)
    return StatementLine.objects.filter(~Exists(done), bucket=Bucket.UNDECIDED)


def match_if_due() -> None:
    """Match, unless another matching that was waited for has left nothing to do."""
    match(is_needed=is_due)


def match(*, is_full: bool = False, is_needed: Callable[[], bool] = lambda: True) -> Matched:
    """Match everything that is new or changed, and decide the bucket of all that is not matched.

    With `is_full`, which a changed own account needs, decide every line and webhook again. Posts nothing.
    Only one matching runs at a time, under the locks of all own accounts; `is_needed` is evaluated there.
    """
    new_webhooks = webhook_terms.add_new()

    def run() -> Matched:
        with transaction.atomic():
            accounts = list(OwnAccount.objects.select_for_update().order_by("pk"))
            if not is_needed():
                return Matched(new_webhooks, {})
            if is_full:
                _reset()
            from_day = min((account.since for account in accounts), default=date.max)
            parameters = {"from_day": shifted(from_day, -WEBHOOK_DAYS_BEFORE)}
            with day_totals.dropping_changed():
                webhook_terms.update_changed()
                _take_back(parameters)
                match_sql.set_outside_aside()
                by_rank = _find(parameters)
                bucketing.decide(parameters)
            day_totals.fill()
            suspects.decide_pairs()
        return Matched(new_webhooks, by_rank)

    return transactions.run_with_retries(run, TRIES_MAX)


def _reset() -> None:
    day_totals.undecide(StatementLine.objects.exclude(bucket=Bucket.UNDECIDED))
    MatchKey.objects.exclude(bucket=Bucket.UNDECIDED).update(bucket=Bucket.UNDECIDED)


def _take_back(parameters: dict[str, Any]) -> None:
    """Delete proposals, and the automatic matches that compete with a line or webhook that is not settled."""
    Proposal.objects.all().delete()
    columns, join = "inn, kopecks, digits_key", joined_in_order()
    keys = f"statements_matchkey{by_index('key_bucket')} WHERE {UNMATCHED} AND state <> 'none'"
    unsettled = (
        f"SELECT {columns} FROM statements_statementline{by_index('line_open')} WHERE {UNSETTLED}"
        f" UNION SELECT {columns} FROM {keys}"
        f" UNION SELECT notified_inn, kopecks, digits_key FROM {keys} AND notified_inn <> inn"
    )
    found = rows(
        f"SELECT m.id, m.line_id, m.webhook_id FROM ({unsettled}) u {join} {LINES}"
        " ON l.inn = u.inn AND l.kopecks = u.kopecks AND l.digits_key = u.digits_key"
        f" {join} statements_match m ON m.line_id = l.id AND m.live = TRUE AND m.`rank` IN (1, 2, 3)",
        parameters,
    )
    withdrawn = _of_withdrawn_lines()
    found = [*found, *(match[:3] for match in withdrawn if match[3] in Match.AUTOMATIC)]
    _undo({match: webhook for match, _, webhook, rank in withdrawn if rank not in Match.AUTOMATIC})
    for start in range(0, len(found), ROWS_AT_ONCE):
        matches, lines, webhooks = zip(*found[start : start + ROWS_AT_ONCE], strict=True)
        Match.objects.filter(pk__in=matches).delete()
        day_totals.undecide(StatementLine.objects.filter(pk__in=lines))
        MatchKey.objects.filter(pk__in=webhooks).update(bucket=Bucket.UNDECIDED)


def _of_withdrawn_lines() -> Sequence[tuple[int, int, int, int]]:
    """Return match, line, webhook and rank of the lines that were withdrawn since the last matching."""
    return rows(
        f"SELECT m.id, m.line_id, m.webhook_id, m.`rank` FROM {LINES}{by_index('line_open')}"
        " JOIN statements_match m ON m.line_id = l.id AND m.live = TRUE"
        " WHERE l.bucket = '' AND l.is_withdrawn = TRUE",
        {},
    )


def _undo(matches: Mapping[int, int]) -> None:
    """Undo operators' matches, which are given with their webhooks: the bank withdrew their lines."""
    Match.objects.filter(pk__in=matches).update(live=None)
    MatchKey.objects.filter(pk__in=matches.values()).update(bucket=Bucket.UNDECIDED)


def _find(parameters: dict[str, Any]) -> dict[int, int]:
    by_rank = {}
    for rank, number in ((Match.Rank.NUMBER, "number_key"), (Match.Rank.DIGITS, "digits_key")):
        by_rank[rank.value] = _match_exactly(rank, number, parameters)
    candidates = [
        [Candidate._make(row) for row in rows(match_sql.near_candidates(payer), parameters)]
        for payer in PAYERS
    ]
    pairs = pair_nearest(candidates, match_sql.NEAR_DAYS_MAX)
    matches = (Match(line_id=line, webhook_id=webhook, rank=Match.Rank.NEAR) for line, webhook in pairs)
    by_rank[Match.Rank.NEAR.value] = len(Match.objects.bulk_create(matches, batch_size=ROWS_AT_ONCE))
    return by_rank


def _match_exactly(rank: Match.Rank, number: str, parameters: dict[str, Any]) -> int:
    found = 0
    for payer in PAYERS:
        if matches := execute(match_sql.exact_matches(rank, number, payer), parameters):
            match_sql.mark_matched(parameters)
        found += matches
    return found
