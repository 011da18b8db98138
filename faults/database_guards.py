"""Try what the database itself must refuse: double keys, and changes of append-only tables."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

from tests.harness.procfile_stack import DATABASE_ERRORS, ProcfileStack, execute

APPEND_ONLY = {  # tables, each with a column
    "ledger_payment": "amount_kopecks",
    "ledger_balancelog": "amount_kopecks",
    "ledger_replacement": "payment_id",
    "statements_statementline": "kopecks",
    "statements_linesighting": "position",
}
LIVE = "WHERE live = 1 "


def check_guards(stack: ProcfileStack) -> Iterator[str]:
    """P2, P4 and one live match (I5) enforced by the database itself: forbidden statements must fail."""
    with closing(stack.session()) as session:
        # Otherwise a foreign key could refuse instead of the unique key under test.
        execute(session, "PRAGMA foreign_keys = OFF" if stack.embedded else "SET foreign_key_checks = 0")
        negative = "UPDATE ledger_organization SET balance_kopecks = -1"
        yield from _try_forbidden(session, "make a balance negative", negative)
        for table, column in APPEND_ONLY.items():
            first = f"id = (SELECT id FROM (SELECT MIN(id) AS id FROM {table}) oldest)"
            update = f"UPDATE {table} SET {column} = {column} + 1 WHERE {first}"
            yield from _try_forbidden(session, f"change a row of {table}", update)
            yield from _try_forbidden(
                session, f"delete a row of {table}", f"DELETE FROM {table} WHERE {first}"
            )
        yield from _try_duplicate(session, "ingest_webhook", "operation_id")
        yield from _try_duplicate(session, "ledger_payment", "operation_id")
        reversals = "WHERE reverses_id IS NOT NULL "
        other = f"'{'0' * 32}'"
        yield from _try_duplicate(session, "ledger_payment", "reverses_id", reversals, operation_id=other)
        yield from _try_duplicate(session, "ledger_replacement", "replaced_id", payment_id=-1)
        yield from _try_duplicate(session, "ledger_replacement", "payment_id", replaced_id=-1)
        yield from _try_duplicate(session, "ledger_balancelog", "organization_id and seq", payment_id=-1)
        yield from _try_duplicate(session, "ledger_balancelog", "payment_id", seq=10**9)
        yield from _try_duplicate(session, "statements_statementline", "account, fingerprint and ordinal")
        yield from _try_duplicate(session, "statements_match", "line_id and live", LIVE, webhook_id=-1)
        yield from _try_duplicate(session, "statements_match", "webhook_id and live", LIVE, line_id=-1)


def _try_duplicate(
    session: Any, table: str, key: str, where: str = "", **changed: int | str
) -> Iterator[str]:
    """Copy one of the rows `where`, except the columns `changed`."""
    with closing(session.cursor()) as cursor:
        cursor.execute(f"SELECT * FROM {table} LIMIT 1")
        names = [column[0] for column in cursor.description if column[0] != "id"]
    columns = ", ".join(f"`{name}`" for name in names)  # quoted: MySQL reserves rank
    values = ", ".join(str(changed.get(name, f"`{name}`")) for name in names)
    copy = f"INSERT INTO {table} ({columns}) SELECT {values} FROM {table} {where}LIMIT 1"
    yield from _try_forbidden(session, f"double {key} of {table}", copy)


def _try_forbidden(session: Any, what: str, statement: str) -> Iterator[str]:
    with closing(session.cursor()) as cursor:
        try:
            cursor.execute(statement)
            if cursor.rowcount:  # 0 rows: the table is empty
                yield f"guards: the database permits to {what}"
        except DATABASE_ERRORS:
            pass
        finally:
            session.rollback()
