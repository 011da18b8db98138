"""Assert that queries use indexes only."""

from collections.abc import Callable

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

requires_mysql_explain = pytest.mark.skipif(
    connection.vendor != "mysql", reason="reads the EXPLAIN of MySQL and MariaDB"
)


def update_statistics() -> None:
    """Update the optimizer statistics of the large tables. Commits the transaction."""
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE TABLE ingest_webhook, ledger_organization, ledger_payment, ledger_balancelog")
        cursor.fetchall()


def assert_index_lookups_only(action: Callable[[], object]) -> None:
    """Run `action` and assert that none of its SELECTs scans a table or sorts.

    The tables must hold enough rows to make a scan attractive. Only for tests with real commits: ANALYZE ends
    the transaction.
    """
    update_statistics()
    with CaptureQueriesContext(connection) as queries:
        action()
    selects = [query["sql"] for query in queries if query["sql"].startswith("SELECT")]
    assert selects
    with connection.cursor() as cursor:
        for select in selects:
            cursor.execute(f"EXPLAIN FORMAT=TRADITIONAL {select}")
            columns = [column[0] for column in cursor.description]
            for row in cursor.fetchall():
                step = dict(zip(columns, row, strict=True))
                if step["table"] is None or step["table"].startswith("<derived"):
                    continue  # no table, or a table derived from another step
                assert step["type"] in {"const", "eq_ref", "ref", "range"}, (select, step)
                assert "filesort" not in (step["Extra"] or ""), (select, step)
                assert "temporary" not in (step["Extra"] or ""), (select, step)
