"""Several database servers in one DATABASE_URL: connect to the first that takes writes.

    mysql://user:password@h1:3306,h2:3306,h3:3306/prihod

The servers are nodes of one cluster. A node that has lost its cluster still accepts connections, so each new
connection asks before it is used.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import structlog

log = structlog.get_logger(__name__)

DEFAULT_PORT = 3306
CONNECT_SECONDS_MAX = 2  # per host; the bank waits meanwhile
TRY_LAST_SECONDS = 10.0  # after a host failed
CANT_CONNECT = 2003  # the client's error "can't connect to the server"

_failed_at: dict["Host", float] = {}  # in this process, by the monotonic clock


class Host(NamedTuple):
    name: str
    port: int

    def __str__(self) -> str:
        return f"{self.name}:{self.port}"


def split_hosts(url: str) -> tuple[str, list[Host]]:
    """Return `url` with the first of its hosts only, and all of them; none if there is no list.

    Raise ValueError if a host is malformed.
    """
    parts = urlsplit(url)
    credentials, at, addresses = parts.netloc.rpartition("@")
    if "," not in addresses:
        return url, []
    hosts = [_parse(address) for address in addresses.split(",")]
    first = f"{credentials}{at}{addresses.partition(',')[0]}"
    return urlunsplit(parts._replace(netloc=first)), hosts


def _parse(address: str) -> Host:
    parts = urlsplit(f"//{address}")
    if not parts.hostname or parts.path:
        raise ValueError(address)
    return Host(parts.hostname, parts.port or DEFAULT_PORT)


def connect_first(
    hosts: Sequence[Host], connect: Callable[[Host], Any], error: type[Exception]
) -> tuple[Host, Any]:
    """Return the first host that takes writes, with its connection, which `connect` opens.

    Begin with the hosts that have not failed within TRY_LAST_SECONDS. Raise `error` with MySQL's code and one
    line if no host takes writes: the code of all failures if they share one, else CANT_CONNECT.
    """
    failures: list[tuple[int, str]] = []
    for host in _in_order(hosts):
        try:
            return host, _connect_if_writable(host, connect, error)
        except error as exc:
            code, text = exc.args[0], f"{host}: {exc.args[-1]}"
            failures.append((code, text))
            avoid(host, text)
    codes = {code for code, _ in failures}
    code = codes.pop() if len(codes) == 1 else CANT_CONNECT
    raise error(code, "no database host takes writes: " + "; ".join(text for _, text in failures))


def _in_order(hosts: Sequence[Host]) -> list[Host]:
    since = time.monotonic() - TRY_LAST_SECONDS
    return sorted(hosts, key=lambda host: _failed_at.get(host, -math.inf) > since)


def _connect_if_writable(host: Host, connect: Callable[[Host], Any], error: type[Exception]) -> Any:
    connection = connect(host)
    try:
        refusal = refusal_of_writes(connection)
    except error:
        connection.close()
        raise
    if refusal:
        connection.close()
        raise error(CANT_CONNECT, refusal)
    return connection


def avoid(host: Host, reason: str) -> None:
    """Try `host` last for the next TRY_LAST_SECONDS."""
    if _failed_at.get(host, -math.inf) < time.monotonic() - TRY_LAST_SECONDS:
        log.warning("database host avoided", reason=reason)
    _failed_at[host] = time.monotonic()


def refusal_of_writes(connection: Any) -> str:
    """Return why the server behind a MySQLdb connection takes no writes; empty if it does.

    SHOW, because a Galera node without its cluster answers nothing else:
    https://galeracluster.com/library/documentation/galera-status-variables.html
    """
    with closing(connection.cursor()) as cursor:
        cursor.execute(
            "SHOW GLOBAL VARIABLES WHERE variable_name IN ('wsrep_on', 'read_only', 'super_read_only')"
        )
        variables = dict(cursor.fetchall())
        if variables.pop("wsrep_on", "OFF") == "ON":
            cursor.execute("SHOW GLOBAL STATUS LIKE 'wsrep_ready'")  # off without Galera, too
            if cursor.fetchall()[0][1] != "ON":
                return "not part of the cluster (wsrep_ready is off)"
    return "read-only" if any(value != "OFF" for value in variables.values()) else ""
