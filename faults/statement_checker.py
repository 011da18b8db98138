"""Check what became of a scenario's statements: by plain SQL, and by `reconcile` without the bug."""

import json
from collections import Counter
from collections.abc import Iterator

from faults.statement_plan import StatementPlan
from tests.harness.procfile_stack import ProcfileStack


def check_statements(stack: ProcfileStack, plan: StatementPlan) -> Iterator[str]:
    """Yield every violation as a sentence, once all webhooks are applied and all actions have run."""
    yield from _lines(stack, plan)
    yield from _credited(stack, plan)
    yield from _totals(stack)
    yield from _reconciled(stack, plan)


def _lines(stack: ProcfileStack, plan: StatementPlan) -> Iterator[str]:
    """I8: files that repeat or overlap add none. I5: a line and a webhook have at most one live match."""
    count, expected = stack.sql("SELECT COUNT(*) FROM statements_statementline")[0][0], plan.line_count
    if count != expected:
        yield f"statements: {count} lines are stored, the files have {expected}"
    for side in ("line_id", "webhook_id"):
        query = f"SELECT {side} FROM statements_match WHERE live = 1 GROUP BY {side} HAVING COUNT(*) > 1"
        if twice := len(stack.sql(query)):
            yield f"statements: {twice} matches of one {side} are live"


def _credited(stack: ProcfileStack, plan: StatementPlan) -> Iterator[str]:
    """I5, I9, I12: each payment is posted once, by its webhook or from the statement, if that is proven."""
    rows = stack.sql(
        "SELECT o.inn, p.amount_kopecks, COUNT(*) FROM ledger_payment p"
        " JOIN ledger_organization o ON o.id = p.organization_id"
        " WHERE p.document_date >= '2026-01-01' GROUP BY o.inn, p.amount_kopecks"
    )
    found, expected = Counter({(inn, kopecks): times for inn, kopecks, times in rows}), plan.credited()
    for inn, kopecks in sorted(found.keys() | expected.keys()):
        times, right = found[inn, kopecks], expected[inn, kopecks]
        if times != right:
            yield f"statements: {kopecks} kopecks of {inn} are credited {times} times instead of {right}"


def _totals(stack: ProcfileStack) -> Iterator[str]:
    """I7: a day's totals, which pages add up, are those of its lines, or are not there."""
    wrong = stack.sql(
        "SELECT t.day, t.bucket FROM statements_daytotal t LEFT JOIN"
        " (SELECT account_id, booked_on, bucket, COUNT(*) AS found, SUM(credit_kopecks) AS kopecks"
        " FROM statements_statementline GROUP BY account_id, booked_on, bucket) l"
        " ON l.account_id = t.account_id AND l.booked_on = t.day AND l.bucket = t.bucket"
        " WHERE l.found IS NULL OR l.found <> t.`lines` OR l.kopecks <> t.kopecks"
    )
    if wrong:
        yield f"statements: the totals of {len(wrong)} buckets of days are not those of their lines"


def _reconciled(stack: ProcfileStack, plan: StatementPlan) -> Iterator[str]:
    """I6 and I7: the buckets have every kopeck that came in, and explain how ledger and bank differ."""
    printed = stack.manage("reconcile", "--json")
    try:
        result = json.loads(printed.stdout)
    except ValueError:
        yield f"statements: reconcile failed: {printed.stderr.strip()[-500:]}"
        return
    if unexplained := result["unexplained_kopecks"]:
        yield f"statements: {unexplained} kopecks are unexplained"
    found = {name: (each["count"], each["kopecks"]) for name, each in result["buckets"].items()}
    filled, expected = {name: each for name, each in found.items() if each[0]}, plan.buckets()
    if filled != expected:
        yield f"statements: the buckets have {filled} instead of {expected}"
