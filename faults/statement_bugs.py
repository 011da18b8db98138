# ruff: noqa: SLF001 a bug between two steps has to wrap private functions
"""The code of the seeded bugs of the reconciliation with bank statements: one or two for each invariant."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from uuid import uuid4

from ingest.inbox import Delivery
from ingest.number_keys import digest
from ledger.terms import PaymentTerms
from statements import bucketing, coverage, day_totals, importing, line_posting, match_sql, posting_conditions
from statements.lines import FoundLine
from statements.match_sql import Payer
from statements.models import Bucket, OwnAccount, StatementLine
from statements.reading import StatementFile
from worker import merging


def _lines_posted_twice() -> None:
    """I5: under an operation id that does not follow from the line."""
    insert = line_posting.insert_webhooks

    def insert_twice(rows: Sequence[tuple[PaymentTerms, Delivery]]) -> None:
        insert(rows)
        insert([(replace(terms, operation_id=uuid4()), delivery) for terms, delivery in rows])

    line_posting.insert_webhooks = insert_twice


def _line_in_no_bucket() -> None:
    """I6."""
    decide = bucketing._decide_lines

    def decide_most() -> None:
        decide()
        own_money = StatementLine.objects.filter(bucket=Bucket.EXCLUDED, credit_kopecks__gt=0)
        own_money.update(bucket=Bucket.OUTSIDE)

    bucketing._decide_lines = decide_most


def _matched_with_tolerance() -> None:
    """I7."""
    exact = match_sql.near_candidates

    def near_candidates(payer: Payer) -> str:
        return re.sub(r"\b([lk])\.kopecks", r"(\1.kopecks | 1023)", exact(payer))

    match_sql.near_candidates = near_candidates


def _lines_of_each_file() -> None:
    """I8."""
    lines_of = importing.lines_of

    def lines_of_this(file: StatementFile, accounts: Mapping[str, OwnAccount]) -> Iterator[FoundLine]:
        for line in lines_of(file, accounts):
            yield line._replace(fingerprint=digest(file.header.created, line.fingerprint))

    importing.lines_of = lines_of_this


def _stale_totals() -> None:
    """I7."""
    day_totals.drop = lambda _days: None


def _unproven_lines_posted() -> None:
    """I9."""
    posting_conditions.proven = lambda lines: {line.pk for line in lines}


def _breaks_overlooked() -> None:
    """I10."""
    coverage.breaks_of = lambda _account: iter(())


def _late_webhooks_posted() -> None:
    """I12."""
    merging.merge_late = lambda _webhook_ids: set()


INSTALLERS: dict[str, Callable[[], None]] = {
    "lines_posted_twice": _lines_posted_twice,
    "line_in_no_bucket": _line_in_no_bucket,
    "matched_with_tolerance": _matched_with_tolerance,
    "lines_of_each_file": _lines_of_each_file,
    "stale_totals": _stale_totals,
    "unproven_lines_posted": _unproven_lines_posted,
    "breaks_overlooked": _breaks_overlooked,
    "late_webhooks_posted": _late_webhooks_posted,
}
