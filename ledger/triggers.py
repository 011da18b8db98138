"""Triggers by which the database itself keeps posted payments and the audit trail append-only.

A trigger only forbids, it never computes. TRUNCATE and DROP fire no row triggers; they need the DROP
privilege, which the application's database user should not have.
"""

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

from django.core.management.base import CommandError
from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper

ER_BINLOG_CREATE_ROUTINE_NEED_SUPER = 1419  # of MySQL and MariaDB


@dataclass(frozen=True)
class AppendOnlyTable:
    """A table whose rows are never deleted, and updated only as allowed here."""

    migration: tuple[str, str]  # creates the table's triggers
    keys: Sequence[tuple[str, ...]] = ()  # its unique keys
    # The UPDATE that is allowed: one that fulfils a condition on OLD and NEW, one that leaves these columns
    # unchanged, or any.
    allowed: str = ""
    fixed: Sequence[str] = ()
    may_be_updated: bool = False


_INITIAL = ("ledger", "0001_initial")
LEDGER_TABLES = {
    "ledger_payment": AppendOnlyTable(_INITIAL, [("id",), ("operation_id",), ("reverses_id",)]),
    "ledger_replacement": AppendOnlyTable(_INITIAL, [("id",), ("replaced_id",), ("payment_id",)]),
    "ledger_balancelog": AppendOnlyTable(_INITIAL, [("id",), ("payment_id",), ("organization_id", "seq")]),
    "ledger_organization": AppendOnlyTable(_INITIAL, fixed=["id", "kind", "inn", "opened_at"]),
}
_registered = dict(LEDGER_TABLES)


def register(tables: dict[str, AppendOnlyTable]) -> None:
    """Add tables of other apps."""
    _registered.update(tables)


def expected_tables(applied: Container[tuple[str, str]]) -> dict[str, AppendOnlyTable]:
    """Return the tables whose triggers must exist once the migrations `applied` have run."""
    return {name: table for name, table in _registered.items() if table.migration in applied}


def create(connection: BaseDatabaseWrapper, tables: dict[str, AppendOnlyTable] = _registered) -> None:
    """Create the missing triggers of `tables`.

    Raise CommandError, with the remedy, if the server's binary log forbids it.
    """
    absent = missing(connection, tables)
    try:
        with connection.cursor() as cursor:
            for name, definition in _triggers(connection.vendor, tables):
                if name in absent:
                    cursor.execute(f"CREATE TRIGGER {name} {definition}")
    except OperationalError as exc:
        if exc.args[0] != ER_BINLOG_CREATE_ROUTINE_NEED_SUPER:
            raise
        raise CommandError(
            "The triggers that protect posted payments and the audit trail could not be created: this server "
            "writes a binary log, and then only users with the SUPER privilege may create triggers. Set "
            "log_bin_trust_function_creators = 1 in its configuration (SET GLOBAL lasts until it restarts) "
            "and run migrate again."
        ) from exc


def drop(connection: BaseDatabaseWrapper, tables: dict[str, AppendOnlyTable] = _registered) -> None:
    with connection.cursor() as cursor:
        for name, _ in _triggers(connection.vendor, tables):
            cursor.execute(f"DROP TRIGGER IF EXISTS {name}")


def visible(connection: BaseDatabaseWrapper) -> bool:
    """Return whether this connection's user has the privilege to see triggers."""
    if connection.vendor == "sqlite":
        return True
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT 1 FROM information_schema.user_privileges WHERE privilege_type = 'TRIGGER' UNION "
            "SELECT 1 FROM information_schema.schema_privileges WHERE privilege_type = 'TRIGGER' UNION "
            "SELECT 1 FROM information_schema.table_privileges WHERE privilege_type = 'TRIGGER'"
        )
        return cursor.fetchone() is not None


def missing(connection: BaseDatabaseWrapper, tables: dict[str, AppendOnlyTable] = _registered) -> list[str]:
    """Return the names of the triggers of `tables` that are not in the database."""
    query = {
        "mysql": "SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = DATABASE()",
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'trigger'",
    }[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(query)
        present = {row[0] for row in cursor.fetchall()}
    return [name for name, _ in _triggers(connection.vendor, tables) if name not in present]


def _triggers(vendor: str, tables: dict[str, AppendOnlyTable]) -> Iterator[tuple[str, str]]:
    """Yield name and definition of each trigger."""
    for name, table in tables.items():
        for event in ("UPDATE", "DELETE"):
            if event == "UPDATE" and table.may_be_updated:
                continue
            allowed = _allowed_update(vendor, table) if event == "UPDATE" else ""
            condition = f"NOT ({allowed})" if allowed else ""
            body = _refusal(vendor, f"{name} is append-only: no {event}", condition)
            yield f"{name}_no_{event.lower()}", f"BEFORE {event} ON {name} FOR EACH ROW {body}"
        # SQLite's REPLACE removes the old row without firing the DELETE trigger.
        if vendor == "sqlite" and table.keys:
            same = " OR ".join(
                " AND ".join(f"{column} = NEW.{column}" for column in key) for key in table.keys
            )
            exists = f"EXISTS (SELECT 1 FROM {name} WHERE {same})"  # noqa: S608 - names from above
            body = _refusal(vendor, f"{name} is append-only: such a row exists", exists)
            yield f"{name}_no_replace", f"BEFORE INSERT ON {name} FOR EACH ROW {body}"


def _allowed_update(vendor: str, table: AppendOnlyTable) -> str:
    """Return the condition of the UPDATE that is allowed; empty if none is."""
    if not table.fixed:
        return table.allowed
    # Compared as bytes, because a column's collation may equate pay-1 and PAY-1. NULL is a change, too: a
    # session without strict mode would store it as 0 or as an empty text.
    same = {
        "mysql": "CAST(NEW.{0} AS BINARY) <=> CAST(OLD.{0} AS BINARY)",
        "sqlite": "NEW.{0} IS OLD.{0}",
    }[vendor]
    return " AND ".join(same.format(column) for column in table.fixed)


def _refusal(vendor: str, message: str, condition: str) -> str:
    """Return the body of a trigger that raises an error, always or on `condition`."""
    if vendor == "sqlite":
        when = f"WHEN {condition} " if condition else ""
        return f"{when}BEGIN SELECT RAISE(ABORT, '{message}'); END"
    signal = f"SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{message}'"
    return f"IF {condition} THEN {signal}; END IF" if condition else signal
