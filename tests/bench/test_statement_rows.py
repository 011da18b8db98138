"""Generated statements agree with the generated webhooks."""

from datetime import date
from functools import partial

import pytest

from bench.database import require_consistent_ledger
from bench.generator import Group, fill_ledger
from bench.statement_rows import ORGANIZATIONS, add_account, file_of, fill_lines
from statements import buckets, coverage, day_totals, listing
from statements.buckets import Scope
from statements.coverage import Period
from statements.importing import import_statement
from statements.matching import Matched, match
from statements.models import Bucket, OwnAccount
from tests.row_counts import count_rows_read
from tests.statements.files import OWN

# By a matching of the new ones among all lines and webhooks, then by one without anything new: twice 5000 to
# find webhooks that committed late, and what is unsettled. Both before a purge, when statistics are wrong.
ROWS_READ_MAX, ROWS_READ_AGAIN_MAX = 110_000, 20_000
SUMS_ROWS_READ_MAX = 8_000  # the days of 5004 lines, without their matches and webhooks
pytestmark = pytest.mark.usefixtures("sequences")


def test_rows_and_files_are_explained_by_the_generated_webhooks() -> None:
    fill_ledger([Group(ORGANIZATIONS, 5)])
    add_account()

    assert fill_lines(4000) == 4000 + 1000 + 4
    imported = import_statement(file_of(range(4001, 5001), date(2024, 2, 1), date(2024, 2, 2)), "")
    found: list[Matched] = []
    rows_read = count_rows_read(lambda: found.append(match()))

    require_consistent_ledger()
    assert (imported.statement.verdict, imported.new_lines) == ("ok", 1000)
    assert found[0].by_rank == {1: 1000, 2: 0, 3: 0}
    assert buckets.totals(Scope())[Bucket.MATCHED].count == 5000
    assert buckets.totals(Scope())[Bucket.MISSING_WEBHOOK].count == 4
    assert buckets.identity(Scope()).unexplained == 0
    assert list(coverage.breaks()) == []
    year = Period(date(2023, 1, 1), date(2023, 12, 31))
    assert count_rows_read(partial(day_totals.sums, OwnAccount.objects.get().pk, year)) < SUMS_ROWS_READ_MAX
    assert rows_read < ROWS_READ_MAX
    assert count_rows_read(match) < ROWS_READ_AGAIN_MAX
    for account in (None, OWN):
        page = partial(listing.lines_page, Scope(account), Bucket.MATCHED, None)
        assert count_rows_read(page) < 4 * listing.PAGE_ROWS  # of 5000 lines
