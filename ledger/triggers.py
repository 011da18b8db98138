"""The database's own refusal to change or remove what was posted.

A trigger only forbids, it never computes. TRUNCATE and DROP are no row operations and pass by:
they need the DROP privilege, which the application's database user should not have.
"""

from collections.abc import Iterator

from django.core.management.base import CommandError
from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper

BINARY_LOG_FORBIDS = 1419  # MySQL's ER_BINLOG_CREATE_ROUTINE_NEED_SUPER

# What makes two rows the same row, by table.
_KEYS: dict[str, list[tuple[str, ...]]] = {
    "ledger_payment": [("id",), ("operation_id",)],
    "ledger_balancelog": [("id",), ("payment_id",), ("organization_id", "seq")],
}


def create(connection: BaseDatabaseWrapper) -> None:
    """Create the triggers that are missing.

    Raises CommandError, with what to do, where the server's binary log stands in the way.
    """
    absent = missing(connection)
    try:
        with connection.cursor() as cursor:
            for name, definition in _triggers(connection.vendor):
                if name in absent:
                    cursor.execute(f"CREATE TRIGGER {name} {definition}")
    except OperationalError as error:
        if error.args[0] != BINARY_LOG_FORBIDS:
            raise
        raise CommandError(
            "The triggers that protect posted payments could not be created: this server writes a binary "
            "log, and then lets only users with the SUPER privilege create triggers. Set "
            "log_bin_trust_function_creators = 1 in its configuration (SET GLOBAL does until it restarts) "
            "and run migrate again."
        ) from error


def drop(connection: BaseDatabaseWrapper) -> None:
    with connection.cursor() as cursor:
        for name, _ in _triggers(connection.vendor):
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


def missing(connection: BaseDatabaseWrapper) -> list[str]:
    """Names of the triggers that should be in the database and aren't."""
    query = {
        "mysql": "SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = DATABASE()",
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'trigger'",
    }[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(query)
        present = {row[0] for row in cursor.fetchall()}
    return [name for name, _ in _triggers(connection.vendor) if name not in present]


def _triggers(vendor: str) -> Iterator[tuple[str, str]]:
    """Name and definition of each."""
    for table, keys in _KEYS.items():
        for act in ("UPDATE", "DELETE"):
            refusal = _refusal(vendor, f"{table} only grows: no {act}")
            yield f"{table}_no_{act.lower()}", f"BEFORE {act} ON {table} FOR EACH ROW {refusal}"
        if vendor == "sqlite":  # whose REPLACE removes the old row without asking the DELETE trigger
            same = " OR ".join(" AND ".join(f"{column} = NEW.{column}" for column in key) for key in keys)
            refusal = _refusal(vendor, f"{table} only grows: such a row exists")
            when = f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {same})"  # noqa: S608 - names from above
            yield f"{table}_no_replace", f"BEFORE INSERT ON {table} FOR EACH ROW {when} {refusal}"


def _refusal(vendor: str, message: str) -> str:
    if vendor == "sqlite":
        return f"BEGIN SELECT RAISE(ABORT, '{message}'); END"
    return f"SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{message}'"
