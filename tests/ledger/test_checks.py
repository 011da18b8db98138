"""System checks find wrong settings of the database server and stop commands that would run on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import MagicMock

import pytest
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import OperationalError, connection
from django.db.migrations.recorder import MigrationRecorder

from ledger import checks, triggers
from ledger.checks import check_database_server

pytestmark = pytest.mark.django_db(transaction=True)
mysql = pytest.mark.skipif(connection.vendor != "mysql", reason="about settings of MySQL and MariaDB")
sqlite = pytest.mark.skipif(connection.vendor != "sqlite", reason="about settings of SQLite")


def execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def read(query: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(query)
        return str(cursor.fetchone()[0])


def found() -> list[str]:
    messages = check_database_server(["default"])
    assert all(message.is_serious() for message in messages)
    return [str(message.id) for message in messages]


@pytest.fixture
def session() -> Iterator[None]:
    """Use a new database session, and discard it with its settings."""
    connection.close()
    yield
    connection.close()


@contextmanager
def server_set(variable: str, value: str) -> Iterator[None]:
    before = read(f"SELECT @@GLOBAL.{variable}")
    execute(f"SET GLOBAL {variable} = {value}")
    try:
        yield
    finally:
        execute(f"SET GLOBAL {variable} = {before}")


def test_database_of_this_run_passes() -> None:
    assert found() == []


def test_without_databases_nothing_is_checked() -> None:
    assert check_database_server() == []


@mysql
@pytest.mark.parametrize(
    ("statement", "check_id"),
    [
        ("SET SESSION sql_mode = ''", "ledger.E002"),
        ("SET SESSION sql_mode = 'ANSI,NO_ZERO_DATE'", "ledger.E002"),
        ("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ", "ledger.E004"),
        ("SET SESSION TRANSACTION ISOLATION LEVEL READ UNCOMMITTED", "ledger.E004"),
        ("SET NAMES latin1", "ledger.E005"),
    ],
)
def test_wrong_session_setting_is_an_error(session: None, statement: str, check_id: str) -> None:
    execute(statement)

    assert found() == [check_id]


@mysql
@pytest.mark.parametrize("mode", ["STRICT_ALL_TABLES", "STRICT_TRANS_TABLES,NO_ZERO_DATE"])
def test_either_strict_mode_passes(session: None, mode: str) -> None:
    execute(f"SET SESSION sql_mode = '{mode}'")

    assert found() == []


@mysql
@pytest.mark.parametrize("value", ["0", "2"])
def test_server_not_flushing_each_commit_is_an_error(value: str) -> None:
    with server_set("innodb_flush_log_at_trx_commit", value):
        assert found() == ["ledger.E003"]
    assert found() == []


@mysql
def test_binary_log_not_flushed_with_each_commit_is_an_error() -> None:
    with server_set("sync_binlog", "0"):
        expected = ["ledger.E003"] if read("SELECT @@log_bin") == "1" else []
        assert found() == expected


@pytest.mark.parametrize(
    ("log_bin", "sync_binlog", "check_ids"),
    [("ON", "0", ["ledger.E003"]), ("ON", "1", []), ("OFF", "0", [])],
)
def test_binary_log_counts_only_where_it_is_written(
    log_bin: str, sync_binlog: str, check_ids: list[str]
) -> None:
    variables = {"innodb_flush_log_at_trx_commit": "1", "log_bin": log_bin, "sync_binlog": sync_binlog}

    assert [message.id for message in checks._durability(variables)] == check_ids


@mysql
@pytest.mark.parametrize(
    ("definition", "check_id"),
    [
        ("(id INT) ENGINE = MyISAM", "ledger.E001"),
        ("(document_number VARCHAR(255) CHARACTER SET latin1)", "ledger.E005"),
    ],
)
def test_table_with_wrong_engine_or_charset_is_an_error(definition: str, check_id: str) -> None:
    execute(f"CREATE TABLE wrong_table {definition}")
    try:
        (message,) = check_database_server(["default"])
    finally:
        execute("DROP TABLE wrong_table")
    assert message.id == check_id
    assert "wrong_table" in message.msg


# Values of the servers' variables, because no server of this run belongs to a cluster; faults/ has some.
SAFE_GROUP = {
    "group_replication_single_primary_mode": "ON",
    "group_replication_consistency": "BEFORE_ON_PRIMARY_FAILOVER",
    "group_replication_unreachable_majority_timeout": "5",
    "group_replication_member_expel_timeout": "0",
}


@pytest.mark.parametrize(
    ("variable", "value", "check_ids"),
    [
        ("group_replication_consistency", "AFTER", []),
        ("group_replication_single_primary_mode", "OFF", ["ledger.W001"]),
        ("group_replication_consistency", "EVENTUAL", ["ledger.W002"]),
        ("group_replication_unreachable_majority_timeout", "0", ["ledger.W003"]),
        ("group_replication_member_expel_timeout", "5", ["ledger.W005"]),
    ],
)
def test_doubtful_setting_of_a_mysql_group_is_a_warning(
    variable: str, value: str, check_ids: list[str]
) -> None:
    messages = checks._group_replication({**SAFE_GROUP, variable: value})

    assert [message.id for message in messages] == check_ids


@pytest.mark.parametrize(("error", "check_ids"), [(None, []), (OperationalError(1142), ["ledger.W004"])])
def test_invisible_members_of_a_mysql_group_are_a_warning(
    error: OperationalError | None, check_ids: list[str]
) -> None:
    server = MagicMock()
    server.cursor().__enter__().execute.side_effect = error

    assert [message.id for message in checks._group_members(server)] == check_ids


@pytest.mark.parametrize(
    ("options", "check_ids"),
    [
        ("pc.checksum = false; pc.ignore_quorum = false; pc.ignore_sb = false; pc.weight = 1", []),
        ("pc.ignore_quorum = true; pc.ignore_sb = false", ["ledger.E007"]),
        ("pc.ignore_quorum = false; pc.ignore_sb = YES;", ["ledger.E007"]),
    ],
)
def test_galera_node_that_ignores_a_lost_majority_is_an_error(options: str, check_ids: list[str]) -> None:
    assert [each.id for each in checks._galera({"wsrep_provider_options": options})] == check_ids


@mysql
def test_database_default_charset_other_than_utf8mb4_is_an_error() -> None:
    execute("ALTER DATABASE CHARACTER SET latin1")
    try:
        assert found() == ["ledger.E005"]
    finally:
        execute("ALTER DATABASE CHARACTER SET utf8mb4")


@sqlite
@pytest.mark.parametrize("level", ["OFF", "NORMAL"])
def test_sqlite_not_flushing_each_commit_is_an_error(session: None, level: str) -> None:
    execute(f"PRAGMA synchronous = {level}")

    assert found() == ["ledger.E003"]


@pytest.fixture
def without_triggers() -> Iterator[None]:
    triggers.drop(connection)
    yield
    triggers.create(connection)


def test_missing_triggers_are_named_in_an_error(without_triggers: None) -> None:
    (message,) = check_database_server(["default"])

    assert (message.id, message.is_serious()) == ("ledger.E006", True)
    assert "ledger_payment_no_update" in message.msg
    assert "ledger_balancelog_no_delete" in message.msg


def test_hint_recreates_missing_triggers(without_triggers: None) -> None:
    (message,) = check_database_server(["default"])
    assert message.hint is not None
    _, program, _ = message.hint.split('"')

    call_command("shell", command=program, verbosity=0)

    assert found() == []


def test_triggers_of_unapplied_migrations_are_not_missing(without_triggers: None) -> None:
    recorder = MigrationRecorder(connection)
    migrations = {
        guarded.migration for guarded in triggers.expected_tables(recorder.applied_migrations()).values()
    }
    for migration in migrations:
        recorder.record_unapplied(*migration)
    try:
        assert found() == []
    finally:
        for migration in migrations:
            recorder.record_applied(*migration)


def test_missing_triggers_stop_check_and_migrate(without_triggers: None) -> None:
    with pytest.raises(SystemCheckError, match="triggers that protect posted payments are missing"):
        call_command("check", databases=["default"])
    with pytest.raises(SystemCheckError, match="triggers that protect posted payments are missing"):
        call_command("migrate", skip_checks=False)
