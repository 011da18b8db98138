"""The servers that the suite and its fault tests lean on do what those expect of them.

A server that isn't installed is skipped here even with REQUIRE_SERVERS=1: `python -m tests` insists on those
that its runs need.
"""

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from tests.harness import servers
from tests.harness.processes import is_alive
from tests.harness.servers import ROOT, MariaDB, MySQL, Redis, Server, ServerFailed, lacking
from tests.markers import sqlite_run_only

pytestmark = sqlite_run_only

DEATH_TIMEOUT_SECONDS = 30.0


def skip_without(kind: type[Server]) -> None:
    if lack := lacking(kind.name):
        pytest.skip(lack)


@pytest.fixture(scope="module", params=[MariaDB, MySQL], ids=lambda kind: kind.name)
def database(request: pytest.FixtureRequest) -> Iterator[Server]:
    pytest.importorskip("MySQLdb", reason="mysqlclient is not installed")
    skip_without(request.param)
    with request.param() as server:
        yield server


@pytest.fixture(params=[MariaDB, Redis], ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> type[Server]:
    """For the tests in which MySQL would do just what MariaDB does, only more slowly."""
    found: type[Server] = request.param
    skip_without(found)
    return found


def test_what_a_database_committed_survives_kill_and_start(database: Server) -> None:
    query(database, "CREATE TABLE kept (kopecks BIGINT)")
    query(database, "INSERT INTO kept VALUES (14500000)")

    database.kill()
    database.start()

    assert query(database, "SELECT kopecks FROM kept") == ((14_500_000,),)


def test_a_database_flushes_every_commit_and_stores_any_character(database: Server) -> None:
    settings = query(database, "SELECT @@innodb_flush_log_at_trx_commit, @@character_set_database")

    assert settings == ((1, "utf8mb4"),)


def test_mysql_keeps_its_binary_log_as_it_does_in_production(database: Server) -> None:
    assert query(database, "SELECT @@log_bin") == ((int(isinstance(database, MySQL)),),)


def test_what_redis_was_told_survives_kill_and_start() -> None:
    skip_without(Redis)
    assert redis_remembers_after_kill([])


def test_settings_win_over_ours() -> None:
    skip_without(Redis)
    assert not redis_remembers_after_kill(["--appendonly", "no"])


def redis_remembers_after_kill(settings: list[str]) -> bool:
    with Redis(settings) as server, redis.Redis.from_url(server.url, decode_responses=True) as client:
        client.set("rung", "yes")
        server.kill()
        server.start()
        return bool(client.get("rung") == "yes")


def test_a_server_dies_with_whoever_started_it_even_by_kill_9(kind: type[Server]) -> None:
    starter, pid, folder = start_elsewhere(kind)
    assert is_alive(pid)

    starter.kill()
    starter.communicate()

    wait_until(lambda: not is_alive(pid))
    shutil.rmtree(folder)  # nobody was left to do it


def start_elsewhere(kind: type[Server]) -> tuple[subprocess.Popen[str], int, Path]:
    """A process that starts a server and then sleeps; the server's pid and folder."""
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


def test_a_server_outlives_the_thread_that_started_it() -> None:
    skip_without(Redis)
    with Redis() as server:
        server.stop()
        thread = threading.Thread(target=server.start)
        thread.start()
        thread.join()
        time.sleep(0.1)  # waits for nothing to happen: its death would take a millisecond

        assert is_alive(server.pid)


def test_nothing_is_left_of_a_server_in_the_end(kind: type[Server]) -> None:
    with kind() as server:
        first_pid = server.pid
        server.stop()
        assert not is_alive(first_pid)
        server.start()
        second_pid = server.pid

    assert not is_alive(second_pid)
    assert not server.folder.exists()


def test_a_failed_start_quotes_the_log(kind: type[Server]) -> None:
    with pytest.raises(ServerFailed, match=r"(?s)instead of starting.*no-such-setting"):
        kind(["--no-such-setting"]).__enter__()


def test_a_missing_server_is_told_with_the_command_that_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(servers.IS_HERE, "Redis", lambda: False)

    with pytest.raises(ServerFailed, match="apt-get install --no-install-recommends redis-tools"):
        Redis()


def query(database: Server, statement: str) -> object:
    client = pytest.importorskip("MySQLdb")
    place = {"unix_socket": str(database.folder / "sock"), "user": "root", "database": "prihod"}
    with closing(client.connect(**place)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        connection.commit()
        return cursor.fetchall()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEATH_TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
