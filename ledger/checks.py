"""System checks of what the ledger assumes of its database server (`manage.py check --database default`).

They run on `migrate` and before `make run` starts anything.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from django.core.checks import CheckMessage, Error, Info
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.recorder import MigrationRecorder

from ledger import triggers

CREATE_TRIGGERS = (
    "python manage.py shell -c"
    ' "from django.db import connection; from ledger import triggers; triggers.create(connection)"'
)


def check_database_server(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    messages: list[CheckMessage] = []
    for alias in databases or []:
        connection = connections[alias]
        messages += _CHECKS[connection.vendor](connection)
        messages += _triggers(connection)
    return messages


def _mysql(connection: BaseDatabaseWrapper) -> Iterator[CheckMessage]:
    with connection.cursor() as cursor:
        cursor.execute("SHOW VARIABLES")  # of the session, after DATABASE_URL and settings
        variables: dict[str, str] = dict(cursor.fetchall())
    yield from _tables(connection)
    yield from _durability(variables)
    if not {"STRICT_TRANS_TABLES", "STRICT_ALL_TABLES"} & set(variables["sql_mode"].split(",")):
        yield Error(
            "sql_mode is not strict: a value too large would be truncated silently",
            hint="leave init_command out of DATABASE_URL, or let it set sql_mode = 'TRADITIONAL'",
            id="ledger.E002",
        )
    isolation = variables.get("transaction_isolation") or variables["tx_isolation"]
    if isolation != "READ-COMMITTED":
        yield Error(
            f"the isolation level is {isolation}: balances would be read from before the lock",
            hint="leave isolation_level out of DATABASE_URL",
            id="ledger.E004",
        )
    if variables["character_set_client"] != "utf8mb4" or variables["character_set_connection"] != "utf8mb4":
        yield Error(
            "the connection is not utf8mb4: some document numbers could not be stored",
            hint="leave charset out of DATABASE_URL",
            id="ledger.E005",
        )
    if variables["character_set_database"] != "utf8mb4":
        yield Error(
            "the database is not utf8mb4: some document numbers could not be stored",
            hint="ALTER DATABASE … CHARACTER SET utf8mb4",
            id="ledger.E005",
        )


def _tables(connection: BaseDatabaseWrapper) -> Iterator[CheckMessage]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()"
            " AND table_type = 'BASE TABLE' AND engine <> 'InnoDB'"
        )
        non_transactional = ", ".join(sorted(name for (name,) in cursor.fetchall()))
        cursor.execute(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = DATABASE()"
            " AND column_name = 'document_number' AND character_set_name <> 'utf8mb4'"
        )
        narrow = ", ".join(sorted(f"{table}.{column}" for table, column in cursor.fetchall()))
    if non_transactional:
        yield Error(
            f"tables without transactions: {non_transactional}",
            hint="ALTER TABLE … ENGINE = InnoDB",
            id="ledger.E001",
        )
    if narrow:
        yield Error(
            f"columns that are not utf8mb4: {narrow}; some document numbers could not be stored",
            hint="ALTER TABLE … CONVERT TO CHARACTER SET utf8mb4",
            id="ledger.E005",
        )


def _durability(variables: dict[str, str]) -> Iterator[CheckMessage]:
    if variables["innodb_flush_log_at_trx_commit"] != "1":
        yield Error(
            "innodb_flush_log_at_trx_commit is not 1: a payment answered 200 can be lost with the server",
            hint="SET GLOBAL innodb_flush_log_at_trx_commit = 1, and in the server's configuration",
            id="ledger.E003",
        )
    # After a crash InnoDB rolls back prepared transactions that are not in the binary log.
    if variables["log_bin"] == "ON" and variables["sync_binlog"] != "1":
        yield Error(
            "the binary log is written but sync_binlog is not 1: a payment answered 200 can be lost with"
            " the machine",
            hint="SET GLOBAL sync_binlog = 1, and in the server's configuration",
            id="ledger.E003",
        )


def _sqlite(connection: BaseDatabaseWrapper) -> Iterator[CheckMessage]:
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA synchronous")
        if cursor.fetchone()[0] < 2:
            yield Error("PRAGMA synchronous is below FULL: a commit can be lost", id="ledger.E003")


def _triggers(connection: BaseDatabaseWrapper) -> Iterator[CheckMessage]:
    """Check that the triggers exist. An error, because a rebuilt table loses its triggers silently.

    Triggers whose migration has not run yet are not expected, so that `migrate` is not stopped.
    """
    tables = triggers.expected_tables(MigrationRecorder(connection).applied_migrations())
    if not tables:
        return
    if not triggers.visible(connection):
        yield Info(
            "this user can't see whether the triggers that protect posted payments exist",
            hint="check as the user who migrates; to see them takes the TRIGGER privilege",
            id="ledger.I001",
        )
    elif names := triggers.missing(connection, tables):
        yield Error(
            f"triggers that protect posted payments are missing: {', '.join(names)}",
            hint=CREATE_TRIGGERS,
            id="ledger.E006",
        )


_CHECKS: dict[str, Callable[[BaseDatabaseWrapper], Iterator[CheckMessage]]] = {
    "mysql": _mysql,
    "sqlite": _sqlite,
}
