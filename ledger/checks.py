"""System checks of what the ledger assumes of its database server (`manage.py check --database default`).

They run on `migrate` and before `make run` starts anything.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from django.core.checks import CheckMessage, Error, Info
from django.core.checks import Warning as CheckWarning
from django.db import OperationalError, connections
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
    yield from _galera(variables)
    if variables.get("group_replication_group_name"):
        yield from _group_replication(variables)
        yield from _group_members(connection)
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


def _galera(variables: dict[str, str]) -> Iterator[CheckMessage]:
    options = variables.get("wsrep_provider_options", "").lower()
    if ignored := re.findall(r"pc\.(?:ignore_quorum|ignore_sb) = (?:true|yes|on|1)\b", options):
        yield Error(
            f"Galera has {ignored[0]}: both sides of a partition would take deliveries",
            hint="leave it out of wsrep_provider_options",
            id="ledger.E007",
        )


def _group_replication(variables: dict[str, str]) -> Iterator[CheckMessage]:
    if variables["group_replication_single_primary_mode"] != "ON":
        yield CheckWarning(
            "the MySQL group has several primaries: their transactions conflict at COMMIT",
            hint="SELECT group_replication_switch_to_single_primary_mode()",
            id="ledger.W001",
        )
    if variables["group_replication_consistency"] == "EVENTUAL":
        yield CheckWarning(
            "group_replication_consistency is EVENTUAL: a new primary may show balances that lack payments",
            hint="set it to BEFORE_ON_PRIMARY_FAILOVER on all members",
            id="ledger.W002",
        )
    if variables["group_replication_unreachable_majority_timeout"] == "0":
        yield CheckWarning(
            "group_replication_unreachable_majority_timeout is 0: without a majority a commit waits for ever",
            hint="set it to 5, in seconds, on all members",
            id="ledger.W003",
        )
    # Members look only every 15 s whether a suspect's time is over, unless it has none.
    if variables["group_replication_member_expel_timeout"] != "0":
        yield CheckWarning(
            "group_replication_member_expel_timeout is not 0: the loss of the primary stops writes for 20 s",
            hint="set it to 0, in seconds, on all members",
            id="ledger.W005",
        )


def _group_members(connection: BaseDatabaseWrapper) -> Iterator[CheckMessage]:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM performance_schema.replication_group_members")
            cursor.execute("SELECT COUNT(*) FROM performance_schema.replication_group_member_stats")
    except OperationalError:
        yield CheckWarning(
            "this user can't see the MySQL group's members: the loss of one is not reported",
            hint="GRANT SELECT ON performance_schema.replication_group_members, and on …_member_stats",
            id="ledger.W004",
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
