"""Generated statements agree with the generated webhooks."""

from datetime import date
from functools import partial

import pytest
from django.db import connection

from bench.database import require_consistent_ledger
from bench.generator import Group, fill_ledger
from bench.statement_rows import ORGANIZATIONS, add_account, file_of, fill_lines
from statements import buckets, coverage, day_totals, listing
from statements.buckets import Scope
from statements.coverage import Period
from statements.importing import import_statement
from statements.matching import match
from statements.models import Bucket, OwnAccount
from tests.harness.wait import wait_until
from tests.row_counts import count_rows_read
from tests.statements.files import OWN

# By a matching without anything new: twice 5000 to find webhooks that committed late, and what is unsettled.
ROWS_READ_MAX = 20_000
SUMS_ROWS_READ_MAX = 8_000  # the days of 5004 lines, without their matches and webhooks
pytestmark = pytest.mark.usefixtures("sequences")


def unpurged() -> int:
    """Return the transactions whose old rows are still in the indexes, where the optimizer counts them."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW GLOBAL STATUS LIKE 'Innodb_history_list_length'")
        return int(cursor.fetchone()[1])


def test_rows_and_files_are_explained_by_the_generated_webhooks() -> None:
    fill_ledger([Group(ORGANIZATIONS, 5)])
    add_account()

    assert fill_lines(4000) == 4000 + 1000 + 4
    imported = import_statement(file_of(range(4001, 5001), date(2024, 2, 1), date(2024, 2, 2)), "")
    matched = match()

    require_consistent_ledger()
    assert (imported.statement.verdict, imported.new_lines) == ("ok", 1000)
    assert matched.by_rank == {1: 1000, 2: 0, 3: 0}
    assert buckets.totals(Scope())[Bucket.MATCHED].count == 5000
    assert buckets.totals(Scope())[Bucket.MISSING_WEBHOOK].count == 4
    assert buckets.identity(Scope()).unexplained == 0
    assert list(coverage.breaks()) == []
    wait_until(lambda: unpurged() == 0, "purged")
    year = Period(date(2023, 1, 1), date(2023, 12, 31))
    assert count_rows_read(partial(day_totals.sums, OwnAccount.objects.get().pk, year)) < SUMS_ROWS_READ_MAX
    assert count_rows_read(match) < ROWS_READ_MAX
    for account in (None, OWN):
        page = partial(listing.lines_page, Scope(account), Bucket.MATCHED, None)
        assert count_rows_read(page) < 4 * listing.PAGE_ROWS  # of 5000 lines
