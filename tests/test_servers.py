"""The servers of the harness keep committed data, stop with their starter, and report what is missing.

A server that isn't installed is skipped even with REQUIRE_SERVERS=1: `python -m tests` already requires those
that its runs need.
"""

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from tests.harness import servers
from tests.harness.processes import is_alive
from tests.harness.servers import ROOT, MariaDB, MySQL, Redis, Server, ServerFailed, missing_reason
from tests.harness.wait import wait_until
from tests.markers import sqlite_run_only

pytestmark = [sqlite_run_only, pytest.mark.process]

DEATH_TIMEOUT_SECONDS = 30.0


def skip_without(kind: type[Server]) -> None:
    if lack := missing_reason(kind.name):
        pytest.skip(lack)


@pytest.fixture(scope="module", params=[MariaDB, MySQL], ids=lambda kind: kind.name)
def database(request: pytest.FixtureRequest) -> Iterator[Server]:
    pytest.importorskip("MySQLdb", reason="mysqlclient is not installed")
    skip_without(request.param)
    with request.param() as server:
        yield server


@pytest.fixture(params=[MariaDB, Redis], ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> type[Server]:
    """Return a server class; MySQL is left out where it behaves like MariaDB and is only slower."""
    found: type[Server] = request.param
    skip_without(found)
    return found


def test_committed_rows_survive_kill_and_restart(database: Server) -> None:
    query(database, "CREATE TABLE payments (kopecks BIGINT)")
    query(database, "INSERT INTO payments VALUES (14500000)")

    database.kill()
    database.start()

    assert query(database, "SELECT kopecks FROM payments") == ((14_500_000,),)


def test_database_flushes_every_commit_and_uses_utf8mb4(database: Server) -> None:
    settings = query(database, "SELECT @@innodb_flush_log_at_trx_commit, @@character_set_database")

    assert settings == ((1, "utf8mb4"),)


def test_only_mysql_writes_a_binary_log(database: Server) -> None:
    assert query(database, "SELECT @@log_bin") == ((int(isinstance(database, MySQL)),),)


def test_redis_data_survives_kill_and_restart() -> None:
    skip_without(Redis)
    assert redis_keeps_data_after_kill([])


def test_settings_override_the_defaults() -> None:
    skip_without(Redis)
    assert not redis_keeps_data_after_kill(["--appendonly", "no"])


def redis_keeps_data_after_kill(settings: list[str]) -> bool:
    with Redis(settings) as server, redis.Redis.from_url(server.url, decode_responses=True) as client:
        client.set("key", "yes")
        server.kill()
        server.start()
        return bool(client.get("key") == "yes")


def test_server_dies_with_its_starter_even_after_kill_9(kind: type[Server]) -> None:
    starter, pid, folder = start_in_another_process(kind)
    assert is_alive(pid)

    starter.kill()
    starter.communicate()

    wait_until(lambda: not is_alive(pid), "the server has died", DEATH_TIMEOUT_SECONDS)
    shutil.rmtree(folder)  # its starter could not


def start_in_another_process(kind: type[Server]) -> tuple[subprocess.Popen[str], int, Path]:
    """Start a server in another process that then sleeps; return the process, the server's pid and folder."""
    script = f"""if True:
        import time
        from tests.harness.servers import {kind.__name__} as Kind
        with Kind() as server:
            print(server.pid, server.folder, flush=True)
            time.sleep(600)
    """
    starter = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    pid, folder = starter.stdout.readline().split()
    return starter, int(pid), Path(folder)


def test_server_outlives_the_thread_that_started_it() -> None:
    skip_without(Redis)
    with Redis() as server:
        server.stop()
        thread = threading.Thread(target=server.start)
        thread.start()
        thread.join()
        time.sleep(0.1)  # if the server died, it would do so within a millisecond

        assert is_alive(server.pid)


def test_stopped_server_leaves_no_process_and_no_folder(kind: type[Server]) -> None:
    with kind() as server:
        first_pid = server.pid
        server.stop()
        assert not is_alive(first_pid)
        server.start()
        second_pid = server.pid

    assert not is_alive(second_pid)
    assert not server.folder.exists()


def test_failed_start_quotes_the_log(kind: type[Server]) -> None:
    with pytest.raises(ServerFailed, match=r"(?s)instead of starting.*no-such-setting"):
        kind(["--no-such-setting"]).__enter__()


def test_missing_server_is_reported_with_its_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(servers.IS_INSTALLED, "Redis", lambda: False)

    with pytest.raises(ServerFailed, match="apt-get install --no-install-recommends redis-tools"):
        Redis()


def query(database: Server, statement: str) -> object:
    client = pytest.importorskip("MySQLdb")
    place = {"unix_socket": str(database.folder / "sock"), "user": "root", "database": "prihod"}
    with closing(client.connect(**place)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        connection.commit()
        return cursor.fetchall()


def test_free_port_is_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stack binds its port seconds later; meanwhile no other gets it."""
    monkeypatch.setattr(servers, "PORTS", [servers.free_port() + 100 * n for n in range(1, 4)])

    assert len({servers.free_port() for _ in range(2)}) == 2
