"""A DATABASE_URL with several hosts: which of them a connection uses, and what the error says."""

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import ConnectionHandler
from pytest_django import DjangoDbBlocker

from config.env import database_from_url, reads_from_url
from core.db.mysql_backend import hosts
from core.db.mysql_backend.hosts import Host, split_hosts
from core.db.transactions import is_transient
from tests.harness.servers import MariaDB, free_port
from tests.harness.tcp_proxy import TcpProxy
from tests.harness.templates import template


@pytest.mark.parametrize(
    ("url", "first_url", "expected"),
    [
        ("mysql://u:p@h1:3307/name", "mysql://u:p@h1:3307/name", []),
        ("mysql://u@h1,h2:3307/n?x=1,2", "mysql://u@h1/n?x=1,2", [Host("h1", 3306), Host("h2", 3307)]),
        ("mysql://u:a,b@h1/name", "mysql://u:a,b@h1/name", []),  # a comma of the password
        ("mysql://u@[::1],[::2]:1/n", "mysql://u@[::1]/n", [Host("::1", 3306), Host("::2", 1)]),
    ],
)
def test_hosts_are_split(url: str, first_url: str, expected: list[Host]) -> None:
    assert split_hosts(url) == (first_url, expected)


@pytest.mark.parametrize("addresses", ["h1,", "h1,h2:many", ",h1", "h1,,h2", "h1,h2:99999"])
def test_malformed_list_is_one_line_without_the_password(addresses: str, tmp_path: Path) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"^DATABASE_URL is malformed.*") as exc:
        database_from_url(f"mysql://u:secret-word@{addresses}/prihod", dev_default=tmp_path / "x")

    assert "secret-word" not in str(exc.value)


def test_single_host_keeps_its_timeout(tmp_path: Path) -> None:
    single, several = (
        database_from_url(f"mysql://u@{addresses}/prihod", dev_default=tmp_path / "x")
        for addresses in ("h1", "h1,h2")
    )

    assert "HOSTS" not in single
    assert (single["OPTIONS"]["connect_timeout"], several["OPTIONS"]["connect_timeout"]) == (5, 2)


class Pair:
    """Two servers behind TCP proxies, and a port on which no server listens."""

    def __init__(self, servers: list[MariaDB]) -> None:
        self.servers = servers
        self.proxies = [TcpProxy(free_port(), str(server.socket_path)) for server in servers]
        self.closed = free_port()

    def wrapper(self, *ports: int) -> BaseDatabaseWrapper:
        addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
        database = database_from_url(f"mysql://root@{addresses}/prihod", dev_default=Path())
        return ConnectionHandler({"default": {**database, "CONN_HEALTH_CHECKS": True}})["default"]

    def set_read_only(self, number: int, *, value: bool) -> None:
        with closing(self.servers[number].session()) as session, session.cursor() as cursor:
            cursor.execute(f"SET GLOBAL read_only = {int(value)}")


@pytest.fixture(scope="module")
def servers() -> Iterator[list[MariaDB]]:
    with ExitStack() as stack:
        yield [stack.enter_context(MariaDB(data=template("mariadb"))) for _ in range(2)]


@pytest.fixture
def pair(
    servers: list[MariaDB], monkeypatch: pytest.MonkeyPatch, django_db_blocker: DjangoDbBlocker
) -> Iterator[Pair]:
    monkeypatch.setattr(hosts, "_failed_at", {})
    pair = Pair(servers)
    with django_db_blocker.unblock():
        yield pair
    pair.set_read_only(0, value=False)
    for proxy in pair.proxies:
        proxy.close()


def port_of(wrapper: BaseDatabaseWrapper) -> int:
    host: Host = wrapper._host  # type: ignore[attr-defined]
    return host.port


def query(wrapper: BaseDatabaseWrapper) -> Any:
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT 1")
        return cursor.fetchone()


class Server:
    """A MySQLdb connection to a server with these variables and this status; faults/ has real clusters."""

    def __init__(self, **values: str) -> None:
        self._values = values
        self._rows: list[tuple[str, str]] = []

    def cursor(self) -> Any:
        return self

    def execute(self, statement: str) -> None:
        self._rows = [(name, value) for name, value in self._values.items() if f"'{name}'" in statement]

    def fetchall(self) -> Any:
        return self._rows

    def close(self) -> None:
        """Close the cursor."""


@pytest.mark.parametrize(
    ("values", "refusal"),
    [
        ({"wsrep_on": "ON", "wsrep_ready": "ON", "read_only": "OFF"}, ""),
        ({"wsrep_on": "ON", "wsrep_ready": "OFF", "read_only": "OFF"}, "not part of the cluster"),
        ({"wsrep_on": "OFF", "wsrep_ready": "OFF", "read_only": "OFF"}, ""),
        ({"wsrep_on": "ON", "wsrep_ready": "ON", "read_only": "ON"}, "read-only"),
        ({"read_only": "OFF", "super_read_only": "ON"}, "read-only"),
    ],
)
def test_node_without_its_cluster_or_read_only_takes_no_writes(values: dict[str, str], refusal: str) -> None:
    found = hosts.refusal_of_writes(Server(**values))

    assert (found.startswith(refusal), bool(found)) == (True, bool(refusal))


def test_connection_that_fails_its_check_is_closed() -> None:
    class Failing(Server):
        is_closed = False

        def cursor(self) -> Any:
            raise ConnectionError("gone away")

        def close(self) -> None:
            self.is_closed = True

    server = Failing()
    with pytest.raises(ConnectionError):
        hosts._connect_if_writable(Host("h1", 3306), lambda _: server, ConnectionError)
    assert server.is_closed


@pytest.mark.process
def test_first_host_that_takes_writes_is_used(pair: Pair) -> None:
    first, second = (proxy.port for proxy in pair.proxies)
    pair.set_read_only(0, value=True)
    wrapper = pair.wrapper(pair.closed, first, second)

    assert query(wrapper) == (1,)
    assert port_of(wrapper) == second
    wrapper.close()


@pytest.mark.process
def test_failed_host_is_tried_last_for_a_while(pair: Pair) -> None:
    first, second = (proxy.port for proxy in pair.proxies)
    pair.proxies[0].black_hole()  # accepts, and never answers
    wrapper = pair.wrapper(first, second)

    started = time.monotonic()
    query(wrapper)
    assert hosts.CONNECT_SECONDS_MAX <= time.monotonic() - started < hosts.CONNECT_SECONDS_MAX + 1
    wrapper.close()
    started = time.monotonic()
    query(wrapper)
    assert time.monotonic() - started < 1
    assert port_of(wrapper) == second
    wrapper.close()


@pytest.mark.process
def test_connection_moves_on_from_a_host_that_became_read_only(pair: Pair) -> None:
    first, second = (proxy.port for proxy in pair.proxies)
    wrapper = pair.wrapper(first, second)
    query(wrapper)
    pair.set_read_only(0, value=True)
    with pytest.raises(DatabaseError), wrapper.cursor() as cursor:
        cursor.execute("no such statement")  # as root may write to a read-only server

    wrapper.close_if_unusable_or_obsolete()

    assert query(wrapper) == (1,)
    assert port_of(wrapper) == second
    wrapper.close()


@pytest.mark.process
def test_connection_moves_on_from_a_host_that_is_gone(pair: Pair) -> None:
    first, second = (proxy.port for proxy in pair.proxies)
    wrapper = pair.wrapper(first, second)
    query(wrapper)
    pair.proxies[0].cut()
    with pytest.raises(DatabaseError):
        query(wrapper)

    wrapper.close_if_unusable_or_obsolete()

    assert query(wrapper) == (1,)
    assert port_of(wrapper) == second
    wrapper.close()


@pytest.mark.process
def test_seconds_of_an_answer_bound_each_host(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    ports = [proxy.port for proxy in pair.proxies]
    wrapper: Any = pair.wrapper(*ports)
    wrapper.answer_seconds_max = 3
    asked: list[tuple[int, int, int]] = []

    def connect(**options: Any) -> None:
        asked.append((options["port"], options["read_timeout"], options["write_timeout"]))
        raise wrapper.Database.OperationalError(hosts.CANT_CONNECT, "refused")

    with monkeypatch.context() as patch:
        patch.setattr(wrapper.Database, "connect", connect)
        with pytest.raises(OperationalError, match="no database host takes writes"):
            wrapper.ensure_connection()

    assert asked == [(port, 3, 3) for port in ports]


@pytest.mark.process
def test_error_names_each_host_in_one_line_and_is_transient(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.set_read_only(0, value=True)
    wrapper = pair.wrapper(pair.closed, pair.proxies[0].port)

    with pytest.raises(OperationalError) as exc:
        query(wrapper)

    code, text = exc.value.args
    assert code == hosts.CANT_CONNECT
    assert re.fullmatch(
        rf"no database host takes writes: 127\.0\.0\.1:{pair.closed}: Can't connect .*; "
        rf"127\.0\.0\.1:{pair.proxies[0].port}: read-only",
        text,
    )
    monkeypatch.setattr("core.db.transactions.connection", wrapper)
    assert is_transient(exc.value)


@pytest.mark.process
def test_error_of_all_hosts_keeps_its_code(pair: Pair) -> None:
    wrapper = pair.wrapper(*(proxy.port for proxy in pair.proxies))
    wrapper.settings_dict["NAME"] = "absent"

    with pytest.raises(OperationalError) as exc:
        query(wrapper)

    assert exc.value.args[0] == 1049


@pytest.mark.process
def test_session_for_reads_waits_for_what_other_nodes_have_committed(pair: Pair) -> None:
    url = f"mysql://root@127.0.0.1:{pair.proxies[0].port}/prihod"
    wrapper = ConnectionHandler({"default": reads_from_url(url)})["default"]

    with wrapper.cursor() as cursor:
        cursor.execute("SELECT @@SESSION.wsrep_sync_wait, @@SESSION.wait_timeout")
        assert cursor.fetchone() == (1, 60)
    wrapper.close()


def test_malformed_url_for_reads_names_its_variable() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"^READ_DATABASE_URL must begin"):
        reads_from_url("postgres://h1/prihod")
