"""Generated statements agree with the generated webhooks."""

from datetime import date

import pytest

from bench.database import require_consistent_ledger
from bench.generator import Group, fill_ledger
from bench.statement_rows import ORGANIZATIONS, add_account, file_of, fill_lines
from statements import buckets, coverage
from statements.buckets import Scope
from statements.importing import import_statement
from statements.matching import match
from statements.models import Bucket

pytestmark = pytest.mark.usefixtures("sequences")


def test_rows_and_files_are_explained_by_the_generated_webhooks() -> None:
    fill_ledger([Group(ORGANIZATIONS, 5)])
    add_account()

    assert fill_lines(4000) == 4000 + 1000 + 4
    imported = import_statement(file_of(range(4001, 4101), date(2024, 2, 1), date(2024, 2, 2)), "")
    matched = match()

    require_consistent_ledger()
    assert (imported.statement.verdict, imported.new_lines) == ("ok", 100)
    assert matched.by_rank == {1: 100, 2: 0, 3: 0}
    assert buckets.totals(Scope())[Bucket.MATCHED].count == 4100
    assert buckets.totals(Scope())[Bucket.MISSING_WEBHOOK].count == 4
    assert buckets.identity(Scope()).unexplained == 0
    assert list(coverage.breaks()) == []
