"""The database's own refusal to change or remove what was posted.

A trigger only forbids, it never computes. TRUNCATE and DROP are no row operations and pass by:
they need the DROP privilege, which the application's database user should not have.
"""

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

from django.core.management.base import CommandError
from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper

ER_BINLOG_CREATE_ROUTINE_NEED_SUPER = 1419  # MySQL's ER_BINLOG_CREATE_ROUTINE_NEED_SUPER


@dataclass(frozen=True)
class AppendOnlyTable:
    """A table whose rows are not to be changed."""

    migration: tuple[str, str]  # that creates its triggers
    keys: Sequence[tuple[str, ...]] = ()  # what makes two rows the same row
    # The UPDATE that is allowed nevertheless: a condition on OLD and NEW, or any that leaves these columns as
    # they are, or any at all.
    allowed: str = ""
    fixed: Sequence[str] = ()
    may_be_updated: bool = False


_INITIAL = ("ledger", "0001_initial")
LEDGER_TABLES = {
    "ledger_payment": AppendOnlyTable(_INITIAL, [("id",), ("operation_id",)]),
    "ledger_balancelog": AppendOnlyTable(_INITIAL, [("id",), ("payment_id",), ("organization_id", "seq")]),
    "ledger_organization": AppendOnlyTable(_INITIAL, fixed=["id", "inn", "opened_at"]),
}
_registered = dict(LEDGER_TABLES)


def register(tables: dict[str, AppendOnlyTable]) -> None:
    """Have tables of other rooms guarded, too."""
    _registered.update(tables)


def expected_tables(applied: Container[tuple[str, str]]) -> dict[str, AppendOnlyTable]:
    """The tables whose triggers must be there, now that these migrations are applied."""
    return {table: guarded for table, guarded in _registered.items() if guarded.migration in applied}


def create(connection: BaseDatabaseWrapper, tables: dict[str, AppendOnlyTable] = _registered) -> None:
    """Create the triggers of `tables` that are missing.

    Raises CommandError, with what to do, where the server's binary log stands in the way.
    """
    absent = missing(connection, tables)
    try:
        with connection.cursor() as cursor:
            for name, definition in _triggers(connection.vendor, tables):
                if name in absent:
                    cursor.execute(f"CREATE TRIGGER {name} {definition}")
    except OperationalError as error:
        if error.args[0] != ER_BINLOG_CREATE_ROUTINE_NEED_SUPER:
            raise
        raise CommandError(
            "The triggers that protect posted payments and the audit trail could not be created: this server "
            "writes a binary log, and then lets only users with the SUPER privilege create triggers. Set "
            "log_bin_trust_function_creators = 1 in its configuration (SET GLOBAL does until it restarts) "
            "and run migrate again."
        ) from error


def drop(connection: BaseDatabaseWrapper, tables: dict[str, AppendOnlyTable] = _registered) -> None:
    with connection.cursor() as cursor:
        for name, _ in _triggers(connection.vendor, tables):
            cursor.execute(f"DROP TRIGGER IF EXISTS {name}")


def visible(connection: BaseDatabaseWrapper) -> bool:
    """Whether this connection's user may see triggers at all."""
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
    """Names of the triggers that should be in the database and aren't."""
    query = {
        "mysql": "SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = DATABASE()",
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'trigger'",
    }[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(query)
        present = {row[0] for row in cursor.fetchall()}
    return [name for name, _ in _triggers(connection.vendor, tables) if name not in present]


def _triggers(vendor: str, tables: dict[str, AppendOnlyTable]) -> Iterator[tuple[str, str]]:
    """Name and definition of each."""
    for table, guarded in tables.items():
        for action in ("UPDATE", "DELETE"):
            if action == "UPDATE" and guarded.may_be_updated:
                continue
            unless = _allowed(vendor, guarded) if action == "UPDATE" else ""
            refusal = _refusal(
                vendor, f"{table} is append-only: no {action}", f"NOT ({unless})" if unless else ""
            )
            yield f"{table}_no_{action.lower()}", f"BEFORE {action} ON {table} FOR EACH ROW {refusal}"
        if (
            vendor == "sqlite" and guarded.keys
        ):  # whose REPLACE removes the old row without asking the DELETE trigger
            same = " OR ".join(
                " AND ".join(f"{column} = NEW.{column}" for column in key) for key in guarded.keys
            )
            exists = f"EXISTS (SELECT 1 FROM {table} WHERE {same})"  # noqa: S608 - names from above
            refusal = _refusal(vendor, f"{table} is append-only: such a row exists", exists)
            yield f"{table}_no_replace", f"BEFORE INSERT ON {table} FOR EACH ROW {refusal}"


def _allowed(vendor: str, guarded: AppendOnlyTable) -> str:
    """The UPDATE that is allowed, as a condition; empty: none."""
    if not guarded.fixed:
        return guarded.allowed
    # As bytes: the collation of a column calls pay-1 and PAY-1 equal. And NULL is a change, too, which a
    # session without strict mode would store as 0 or as an empty text.
    same = {
        "mysql": "CAST(NEW.{0} AS BINARY) <=> CAST(OLD.{0} AS BINARY)",
        "sqlite": "NEW.{0} IS OLD.{0}",
    }[vendor]
    return " AND ".join(same.format(column) for column in guarded.fixed)


def _refusal(vendor: str, message: str, when: str) -> str:
    """What a trigger does; with `when`, only on that condition."""
    if vendor == "sqlite":
        return f"{f'WHEN {when} ' if when else ''}BEGIN SELECT RAISE(ABORT, '{message}'); END"
    signal = f"SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{message}'"
    return f"IF {when} THEN {signal}; END IF" if when else signal
