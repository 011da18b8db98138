"""The matching's statements in SQL: set-based, with ROW_NUMBER(), alike on SQLite, MariaDB and MySQL.

`l` is a line that may be matched, `k` the terms of a webhook, `m` a live match. Parameters are %(from_day)s,
the first day of webhooks that are considered.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from django.db import connection

from statements.models import Bucket, Decision, Match

NEAR_DAYS_MAX = 5  # between document date and booking, over the longest holidays

_MATCHED = "SELECT 1 FROM statements_match m WHERE m.live = TRUE AND"
DECIDED = "SELECT 1 FROM statements_decision d WHERE"
_PROPOSED = "SELECT 1 FROM statements_proposal p WHERE"
_OUTSIDE = (
    "is_withdrawn = TRUE OR NOT EXISTS (SELECT 1 FROM statements_ownaccount a"
    " WHERE a.id = statements_statementline.account_id AND statements_statementline.booked_on >= a.since"
    " AND (a.until IS NULL OR statements_statementline.booked_on <= a.until))"
)
_UNSETTLED = ", ".join(f"'{bucket}'" for bucket in Bucket if bucket not in {Bucket.MATCHED, Bucket.OUTSIDE})
# By the index of bucket and INN, as most lines are matched, or debits, which have no INN.
UNSETTLED = f"bucket IN ({_UNSETTLED}) AND inn IS NOT NULL"
UNSETTLED_OR_NEW = f"(bucket = '' OR {UNSETTLED})"

# Lines and webhooks that are free to be matched. No join of accounts: from one account a server would begin,
# and read all its lines.
OPEN_LINE = (
    f"l.bucket IN ({_UNSETTLED}) AND l.inn IS NOT NULL AND l.is_reversal = FALSE"
    f" AND NOT EXISTS ({_MATCHED} m.line_id = l.id)"
    f" AND NOT EXISTS ({DECIDED} d.line_id = l.id AND d.kind = '{Decision.Kind.SEPARATED}')"
)
OPEN_KEY = (
    "k.state <> 'none' AND k.bucket <> 'matched' AND k.day >= %(from_day)s"
    f" AND NOT EXISTS ({_MATCHED} m.webhook_id = k.webhook_id)"
)
UNPROPOSED_LINE = (
    f"{OPEN_LINE} AND NOT EXISTS ({_PROPOSED} p.line_id = l.id) AND NOT EXISTS ({DECIDED} d.line_id = l.id)"
)
UNPROPOSED_KEY = (
    f"{OPEN_KEY} AND k.state = 'posted' AND NOT EXISTS ({_PROPOSED} p.webhook_id = k.webhook_id)"
    f" AND NOT EXISTS ({DECIDED} d.webhook_id = k.webhook_id)"
)
LINES = "statements_statementline l"
KEYS = "statements_matchkey k"

# Applied before unapplied, then the older webhook; then the line's position, in any order of import.
KEY_ORDER = "CASE k.state WHEN 'posted' THEN 0 ELSE 1 END, k.webhook_id"
LINE_ORDER = "l.booked_on, l.position, l.fingerprint, l.ordinal, l.id"


class Payer(NamedTuple):
    """How a line's payer and a webhook's are compared: expressions that must be equal, and a condition."""

    line_inn: str
    key_inn: str
    condition: str = "TRUE"


PAYERS = (
    Payer("l.inn", "k.inn"),
    # Assigned from suspense to an organization, while the statement doesn't say to which.
    Payer("l.inn", "k.notified_inn", "k.notified_inn LIKE '@%%' AND k.notified_inn <> k.inn"),
    # Posted to suspense by a source that doesn't say to which account the money came.
    Payer(
        "CASE WHEN l.inn LIKE '@%%' THEN '@unknown' END",
        "k.notified_inn",
        "k.notified_inn = '@unknown'",
    ),
)


def numbered(partition: str, order: str) -> str:
    return f"ROW_NUMBER() OVER (PARTITION BY {partition} ORDER BY {order})"


def exact_matches(rank: int, number: str, payer: Payer) -> str:
    """Return the INSERT of ranks 1 and 2: payer, amount, `number` and day are equal.

    Equal lines are numbered in their order, equal webhooks in theirs; those of one number belong together.
    They are joined by sorting both, which no optimizer turns into nested loops.
    """
    partition = "{payer}, {t}.kopecks, {t}.{number}, {day}"
    of_lines = partition.format(payer=payer.line_inn, t="l", number=number, day="l.date")
    of_keys = partition.format(payer=payer.key_inn, t="k", number=number, day="k.day")
    lines = (
        f"SELECT {payer.line_inn} AS inn, l.kopecks, l.{number} AS number, l.date AS day,"
        f" {numbered(of_lines, LINE_ORDER)} AS ordinal, l.id AS line_id, NULL AS webhook_id"
        f" FROM {LINES} WHERE {OPEN_LINE} AND l.{number} IS NOT NULL"
    )
    keys = (
        f"SELECT {payer.key_inn} AS inn, k.kopecks, k.{number} AS number, k.day,"
        f" {numbered(of_keys, KEY_ORDER)} AS ordinal, NULL AS line_id, k.webhook_id"
        f" FROM {KEYS} WHERE {OPEN_KEY} AND {payer.condition} AND k.{number} IS NOT NULL"
    )
    return (
        "INSERT INTO statements_match (line_id, webhook_id, `rank`, live, action_id)"
        f" SELECT MAX(line_id), MAX(webhook_id), {rank}, TRUE, NULL FROM ({lines} UNION ALL {keys}) numbered"
        " GROUP BY inn, kopecks, number, day, ordinal HAVING COUNT(*) = 2"
    )


def set_outside_aside() -> None:
    """Set the bucket of lines that are withdrawn or outside the days of their account."""
    execute(
        f"UPDATE statements_statementline SET bucket = 'outside' WHERE {UNSETTLED_OR_NEW} AND ({_OUTSIDE})",
        {},
    )


def mark_matched() -> None:
    """Set the bucket of what ranks 1 and 2 found, so that later statements read only the rest."""
    found = f"{_MATCHED} m.`rank` IN ({Match.Rank.NUMBER}, {Match.Rank.DIGITS}) AND"
    posted = "SELECT 1 FROM statements_matchkey k WHERE k.webhook_id = m.webhook_id AND k.state = 'posted'"
    execute(
        f"UPDATE statements_statementline SET bucket = 'matched' WHERE {UNSETTLED}"
        f" AND EXISTS ({found} m.line_id = statements_statementline.id AND EXISTS ({posted}))",
        {},
    )
    execute(
        "UPDATE statements_matchkey SET bucket = 'matched' WHERE bucket <> 'matched'"
        f" AND EXISTS ({found} m.webhook_id = statements_matchkey.webhook_id)",
        {},
    )


def near_distances(payer: Payer) -> str:
    """Return the SELECT of the distances in days at which pairs for rank 3 are left."""
    return (
        f"SELECT DISTINCT {_distance()} FROM {LINES} JOIN {KEYS} ON {_same_terms(payer)}"
        f" WHERE {near_condition()} AND {OPEN_LINE} AND {OPEN_KEY}"
    )


def near_matches(days: int, payer: Payer) -> str:
    """Return the INSERT of rank 3 for pairs `days` apart: of those left, the first in order."""
    on = f"{_same_terms(payer)} AND {_distance()} = {days}"
    return (
        "INSERT INTO statements_match (line_id, webhook_id, `rank`, live, action_id)"
        f" SELECT line_id, webhook_id, 3, TRUE, NULL FROM ({_first_pairs(on, OPEN_LINE, OPEN_KEY)}) pairs"
        " WHERE of_line = 1 AND of_webhook = 1"
    )


def _same_terms(payer: Payer) -> str:
    return (
        f"{payer.key_inn} = {payer.line_inn} AND {payer.condition} AND k.kopecks = l.kopecks"
        " AND k.digits_key = l.digits_key"
    )


def proposals(bucket: Bucket, on: str) -> str:
    """Return the INSERT of pairs that agree as `on` says: of the pairs left, those first in order."""
    return (
        "INSERT INTO statements_proposal (line_id, webhook_id, bucket)"
        f" SELECT line_id, webhook_id, '{bucket}'"
        f" FROM ({_first_pairs(on, UNPROPOSED_LINE, UNPROPOSED_KEY)}) pairs"
        " WHERE of_line = 1 AND of_webhook = 1"
    )


def suggestions() -> str:
    """Return the INSERT of pairs with equal payer, amount and day that are alone on both sides."""
    lines = (
        "SELECT l.inn, l.kopecks, l.date AS day, l.id AS line_id, NULL AS webhook_id"
        f" FROM {LINES} WHERE {UNPROPOSED_LINE}"
    )
    keys = f"SELECT k.inn, k.kopecks, k.day, NULL AS line_id, k.webhook_id FROM {KEYS} WHERE {UNPROPOSED_KEY}"
    return (
        "INSERT INTO statements_proposal (line_id, webhook_id, bucket)"
        f" SELECT MAX(line_id), MAX(webhook_id), '{Bucket.SUGGESTED}' FROM ({lines} UNION ALL {keys}) pairs"
        " GROUP BY inn, kopecks, day HAVING COUNT(line_id) = 1 AND COUNT(webhook_id) = 1"
    )


def _first_pairs(on: str, line: str, key: str) -> str:
    return (
        "SELECT l.id AS line_id, k.webhook_id,"
        f" {numbered('l.id', KEY_ORDER)} AS of_line, {numbered('k.webhook_id', LINE_ORDER)} AS of_webhook"
        f" FROM {LINES} JOIN {KEYS} ON {on} WHERE {line} AND {key}"
    )


def _distance() -> str:
    """Return the days between a webhook's day and the nearer of the line's date and booking day."""
    days, smaller = ("julianday", "MIN") if connection.vendor == "sqlite" else ("TO_DAYS", "LEAST")
    day, date, booked = (f"{days}({column})" for column in ("k.day", "l.date", "l.booked_on"))
    return f"{smaller}(ABS({day} - {date}), ABS({day} - {booked}))"


def near_condition() -> str:
    return f"{_distance()} <= {NEAR_DAYS_MAX}"


def execute(sql: str, parameters: dict[str, Any]) -> int:
    """Return the number of rows inserted or changed."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        count: int = cursor.rowcount
    return max(count, 0)


def rows(sql: str, parameters: dict[str, Any]) -> Sequence[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        fetched: Sequence[tuple[Any, ...]] = cursor.fetchall()
    return fetched
