"""The matching's statements in SQL: set-based, with ROW_NUMBER(), alike on SQLite, MariaDB and MySQL.

`l` is a line that may be matched, `k` the terms of a webhook, `m` a live match. Parameters are %(from_day)s,
the first day of webhooks that are considered.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from django.db import connection

from statements.models import Bucket, Decision, Match

Columns = Mapping[str, tuple[str, str]]  # name → expression of a line, and of a webhook

NEAR_DAYS_MAX = 5  # between document date and booking, over the longest holidays

_MATCHED = "SELECT m.id FROM statements_match m WHERE m.live = TRUE AND"
DECIDED = "SELECT 1 FROM statements_decision d WHERE"
_PROPOSED = "SELECT 1 FROM statements_proposal p WHERE"
_OUTSIDE = (
    "is_withdrawn = TRUE OR NOT EXISTS (SELECT 1 FROM statements_ownaccount a"
    " WHERE a.id = statements_statementline.account_id AND statements_statementline.booked_on >= a.since"
    " AND (a.until IS NULL OR statements_statementline.booked_on <= a.until))"
)


def _listed(*excluded: Bucket) -> str:
    return ", ".join(f"'{bucket}'" for bucket in Bucket if bucket not in excluded)


_UNSETTLED = _listed(Bucket.MATCHED, Bucket.OUTSIDE)
# The index line_open has these, while most lines are matched, or debits, which have no INN.
UNSETTLED = f"bucket IN ({_UNSETTLED}) AND inn IS NOT NULL"
UNSETTLED_OR_NEW = f"(bucket = '' OR {UNSETTLED})"

# Lines and webhooks that are free to be matched. No join of accounts: from one account a server would begin,
# and read all its lines. No NOT EXISTS of matches: for that MariaDB may read all matches.
UNSETTLED_LINE = f"l.bucket IN ({_UNSETTLED}) AND l.inn IS NOT NULL"
OPEN_LINE = (
    f"{UNSETTLED_LINE} AND l.is_reversal = FALSE"
    f" AND ({_MATCHED} m.line_id = l.id) IS NULL"
    f" AND NOT EXISTS ({DECIDED} d.line_id = l.id AND d.kind = '{Decision.Kind.SEPARATED}')"
)
UNMATCHED = f"bucket IN ({_listed(Bucket.MATCHED)}) AND day >= %(from_day)s"  # webhooks of key_bucket
OPEN_KEY = f"{UNMATCHED} AND k.state <> 'none' AND ({_MATCHED} m.webhook_id = k.webhook_id) IS NULL"
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
    """How a line's payer and a webhook's are compared: expressions that must be equal, and conditions."""

    line_inn: str
    key_inn: str
    line: str = "TRUE"
    key: str = "TRUE"


_SUSPENSE = "l.inn LIKE '@%%'"
PAYERS = (
    Payer("l.inn", "k.inn"),
    # Assigned from suspense to an organization, while the statement doesn't say to which.
    Payer("l.inn", "k.notified_inn", _SUSPENSE, "k.notified_inn LIKE '@%%' AND k.notified_inn <> k.inn"),
    # Posted to suspense by a source that doesn't say to which account the money came.
    Payer("'@unknown'", "k.notified_inn", _SUSPENSE, "k.notified_inn = '@unknown'"),
)


def by_index(name: str) -> str:
    """Return the hint to read a table by its index `name`.

    MySQL and MariaDB would read all lines instead, once a large file is imported: its lines are many, and
    entries of lines that were just matched count until the purge. SQLite takes the index.
    """
    return f" FORCE INDEX ({name})" if connection.vendor == "mysql" else ""


def joined_in_order() -> str:
    """Return the JOIN whose left side is read first, on any server."""
    return "STRAIGHT_JOIN" if connection.vendor == "mysql" else "CROSS JOIN"


def numbered(partition: str, order: str) -> str:
    return f"ROW_NUMBER() OVER (PARTITION BY {partition} ORDER BY {order})"


def exact_matches(rank: int, number: str, payer: Payer) -> str:
    """Return the INSERT of ranks 1 and 2: payer, amount, `number` and day are equal."""
    terms = {**_payer_and_amount(payer), "number": (f"l.{number}", f"k.{number}"), "day": ("l.date", "k.day")}
    rows = _numbered_rows(
        terms,
        f"{OPEN_LINE} AND {payer.line} AND l.{number} IS NOT NULL",
        f"{OPEN_KEY} AND {payer.key} AND k.{number} IS NOT NULL",
    )
    return (
        "INSERT INTO statements_match (line_id, webhook_id, `rank`, live, action_id)"
        f" SELECT MAX(line_id), MAX(webhook_id), {rank}, TRUE, NULL FROM ({rows}) numbered"
        f" GROUP BY {', '.join(terms)}, ordinal HAVING COUNT(*) = 2"
    )


def _payer_and_amount(payer: Payer) -> Columns:
    return {"inn": (payer.line_inn, payer.key_inn), "kopecks": ("l.kopecks", "k.kopecks")}


def _numbered_rows(terms: Columns, line: str, key: str, **others: tuple[str, str]) -> str:
    """Return the SELECT of the lines and webhooks that fulfil the conditions `line` and `key`.

    Equal lines are numbered in their order, equal webhooks in theirs; those of one number belong together.
    Both are rows of one list, which the caller sorts: no optimizer turns that into nested loops.
    """
    columns, partition = {**terms, **others}.items(), terms.values()
    selected = (
        ", ".join(f"{expressions[side]} AS {name}" for name, expressions in columns)
        + f", {numbered(', '.join(expressions[side] for expressions in partition), order)} AS ordinal"
        for side, order in enumerate((LINE_ORDER, KEY_ORDER))
    )
    of_lines, of_keys = selected
    return (
        f"SELECT {of_lines}, l.id AS line_id, NULL AS webhook_id"
        f" FROM {LINES}{by_index('line_open')} WHERE {line}"
        f" UNION ALL SELECT {of_keys}, NULL AS line_id, k.webhook_id"
        f" FROM {KEYS}{by_index('key_bucket')} WHERE {key}"
    )


def set_outside_aside() -> None:
    """Set the bucket of lines that are withdrawn or outside the days of their account."""
    execute(
        f"UPDATE statements_statementline{by_index('line_open')} SET bucket = 'outside'"
        f" WHERE {UNSETTLED_OR_NEW} AND ({_OUTSIDE})",
        {},
    )


def mark_matched(parameters: dict[str, Any]) -> None:
    """Set the bucket of what ranks 1 and 2 found, so that later statements read only the rest."""
    found = f"{_MATCHED} m.`rank` IN ({Match.Rank.NUMBER}, {Match.Rank.DIGITS}) AND"
    posted = "SELECT 1 FROM statements_matchkey k WHERE k.webhook_id = m.webhook_id AND k.state = 'posted'"
    execute(
        f"UPDATE statements_statementline{by_index('line_open')} SET bucket = 'matched'"
        f" WHERE {UNSETTLED}"
        f" AND EXISTS ({found} m.line_id = statements_statementline.id AND EXISTS ({posted}))",
        {},
    )
    execute(
        f"UPDATE statements_matchkey{by_index('key_bucket')} SET bucket = 'matched' WHERE {UNMATCHED}"
        f" AND EXISTS ({found} m.webhook_id = statements_matchkey.webhook_id)",
        parameters,
    )


def near_candidates(payer: Payer) -> str:
    """Return the SELECT of what rank 3 may pair, in order, with the columns of Candidate.

    Lines and webhooks of equal payer, amount and digits, if there is at least one of each.
    """
    terms = {**_payer_and_amount(payer), "number": ("l.digits_key", "k.digits_key")}
    rows = _numbered_rows(
        terms,
        f"{OPEN_LINE} AND {payer.line} AND l.digits_key IS NOT NULL",
        f"{OPEN_KEY} AND {payer.key} AND k.digits_key IS NOT NULL",
        day=(_day_number("l.date"), _day_number("k.day")),
        booked_on=(_day_number("l.booked_on"), _day_number("k.day")),
    )
    names = ", ".join(terms)
    counts = ", ".join(
        f"COUNT({side}_id) OVER (PARTITION BY {names}) AS of_{side}" for side in ("line", "webhook")
    )
    return (
        f"SELECT {names}, ordinal, day, booked_on, line_id, webhook_id FROM"
        f" (SELECT numbered.*, {counts} FROM ({rows}) numbered) counted"
        " WHERE of_line > 0 AND of_webhook > 0 ORDER BY ordinal"
    )


def proposals(bucket: Bucket, same: str, other: str) -> str:
    """Return the INSERT of pairs with equal digits, day and column `same`, of which `other` differs."""
    terms = {
        "digits_key": ("l.digits_key", "k.digits_key"),
        "day": ("l.date", "k.day"),
        same: (f"l.{same}", f"k.{same}"),
    }
    rows = _numbered_rows(
        terms,
        f"{UNPROPOSED_LINE} AND l.digits_key IS NOT NULL",
        f"{UNPROPOSED_KEY} AND k.digits_key IS NOT NULL",
        other=(f"l.{other}", f"k.{other}"),
    )
    return (
        "INSERT INTO statements_proposal (line_id, webhook_id, bucket)"
        f" SELECT MAX(line_id), MAX(webhook_id), '{bucket}' FROM ({rows}) numbered"
        f" GROUP BY {', '.join(terms)}, ordinal HAVING COUNT(*) = 2 AND MIN(other) <> MAX(other)"
    )


def suggestions() -> str:
    """Return the INSERT of pairs with equal payer, amount and day that are alone on both sides."""
    terms = {"inn": ("l.inn", "k.inn"), "kopecks": ("l.kopecks", "k.kopecks"), "day": ("l.date", "k.day")}
    rows = _numbered_rows(terms, UNPROPOSED_LINE, UNPROPOSED_KEY)
    return (
        "INSERT INTO statements_proposal (line_id, webhook_id, bucket)"
        f" SELECT MAX(line_id), MAX(webhook_id), '{Bucket.SUGGESTED}' FROM ({rows}) numbered"
        f" GROUP BY {', '.join(terms)} HAVING COUNT(line_id) = 1 AND COUNT(webhook_id) = 1"
    )


def _distance() -> str:
    """Return the days between a webhook's day and the nearer of the line's date and booking day."""
    smaller = "MIN" if connection.vendor == "sqlite" else "LEAST"
    day, date, booked = map(_day_number, ("k.day", "l.date", "l.booked_on"))
    return f"{smaller}(ABS({day} - {date}), ABS({day} - {booked}))"


def _day_number(column: str) -> str:
    return f"CAST(julianday({column}) AS INTEGER)" if connection.vendor == "sqlite" else f"TO_DAYS({column})"


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
