"""A private RabbitMQ cluster of three nodes on loopback ports, unpacked from Debian's packages.

    with RabbitCluster() as cluster:
        run_something(REDIS_URL=cluster.url)

The nodes find each other by a port mapper (epmd) of their own, so that clusters don't meet.
"""

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from tests.harness.servers import CONNECT_TIMEOUT_SECONDS, RABBITMQ_TREE, Server, ServerGroup, free_port

NODES = 3
COOKIE = "only-for-the-fault-suite"
PROTOCOL_HEADER = b"AMQP\0\0\x09\x01"


class PortMapper(Server):
    """Erlang's epmd."""

    name = "RabbitMQ"

    def __init__(self) -> None:
        super().__init__()
        self.port = free_port()

    @property
    def url(self) -> str:
        raise NotImplementedError

    def _program(self) -> list[str | Path]:
        return [next(RABBITMQ_TREE.glob("usr/lib/erlang/erts-*/bin/epmd"))]

    def _options(self) -> list[str]:
        return ["-port", str(self.port), "-address", self.host]

    def _accepts_clients(self) -> bool:
        socket.create_connection((self.host, self.port), timeout=CONNECT_TIMEOUT_SECONDS).close()
        return True


class RabbitNode(Server):
    """`number` counts from 0; node 0 founds the cluster."""

    name = "RabbitMQ"
    start_seconds_max = 180.0  # Erlang loads a thousand modules

    def __init__(self, number: int, mapper: PortMapper) -> None:
        super().__init__()
        self.number = number
        self.port = free_port()
        self._mapper = mapper
        self._distribution_port = free_port()

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@{self.host}:{self.port}//"

    def start(self) -> None:
        self._write_files()
        super().start()

    def _write_files(self) -> None:
        cookie = self.folder / ".erlang.cookie"
        if not cookie.exists():
            cookie.write_text(COOKIE)
            cookie.chmod(0o400)
        found = {
            "listeners.tcp.1": f"{self.host}:{self.port}",
            "cluster_formation.peer_discovery_backend": "classic_config",
            "cluster_formation.classic_config.nodes.1": "prihod0@localhost",
        }
        lines = [f"{key} = {value}\n" for key, value in found.items()]
        (self.folder / "rabbitmq.conf").write_text("".join(lines))
        # Debian's script knows Erlang's folder in /usr only.
        (self.folder / "erl").write_text('#!/bin/sh\nexec "$BINDIR/erlexec" "$@"\n')
        (self.folder / "erl").chmod(0o755)

    def _environment(self) -> Mapping[str, str]:
        erlang = RABBITMQ_TREE / "usr/lib/erlang"
        return {
            "HOME": str(self.folder),
            "PATH": os.pathsep.join([str(self.folder), "/usr/bin", "/bin"]),
            "LANG": "C.UTF-8",
            "ROOTDIR": str(erlang),
            "BINDIR": str(next(erlang.glob("erts-*/bin"))),
            "EMU": "beam",
            "PROGNAME": "erl",
            "ERL_EPMD_PORT": str(self._mapper.port),
            "ERL_EPMD_ADDRESS": self.host,
            "ERL_CRASH_DUMP": "/dev/null",
            "RABBITMQ_NODENAME": f"prihod{self.number}@localhost",
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder),
            "RABBITMQ_LOGS": "-",
            "RUNNING_UNDER_SYSTEMD": "true",  # so that the script becomes the server
        }

    def _program(self) -> list[str | Path]:
        script = next(RABBITMQ_TREE.glob("usr/lib/rabbitmq/lib/*/sbin/rabbitmq-server"))
        settings = (f"{key}={value}" for key, value in self._environment().items())
        return ["env", "--ignore-environment", *settings, script]

    def _options(self) -> list[str]:
        return []

    def _accepts_clients(self) -> bool:
        """Return whether the node responds to a client's greeting with a method, which is frame type 1."""
        with socket.create_connection((self.host, self.port), timeout=CONNECT_TIMEOUT_SECONDS) as client:
            client.sendall(PROTOCOL_HEADER)
            return client.recv(1) == b"\x01"


class RabbitCluster(ServerGroup):
    """The nodes with the surface of one broker, for ProcfileStack."""

    name = "RabbitMQ"

    def __init__(self) -> None:
        self._mapper = PortMapper()
        self.nodes = [RabbitNode(number, self._mapper) for number in range(NODES)]

    def members(self) -> list[Server]:
        return [self._mapper, *self.nodes]

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@{','.join(f'{node.host}:{node.port}' for node in self.nodes)}//"

    @property
    def log(self) -> Path:
        return self.nodes[0].log

    @property
    def pid(self) -> int:
        return self.nodes[0].pid
