"""HAProxy with a configuration of deploy/, in front of private nodes."""

import re
import socket
from collections.abc import Sequence
from pathlib import Path

from tests.harness.galera import GaleraNode
from tests.harness.group_replication import GroupMember
from tests.harness.servers import CLUSTER_TREE, CONNECT_TIMEOUT_SECONDS, ROOT, Server, free_port

FOR_GALERA = ROOT / "deploy" / "haproxy.cfg"
FOR_GROUP_REPLICATION = ROOT / "deploy" / "haproxy_group_replication.cfg"


class HAProxy(Server):
    name = "HAProxy"

    def __init__(self, nodes: Sequence[GaleraNode | GroupMember], configuration: Path = FOR_GALERA) -> None:
        super().__init__()
        self.port = free_port()
        self._nodes = nodes
        self._text = configuration.read_text()

    @property
    def url(self) -> str:
        return f"mysql://root@127.0.0.1:{self.port}/prihod"

    def start(self) -> None:
        """Start with the nodes' addresses, and execute the statements in the configuration's comment."""
        for statement in re.findall(r"^# {5}(.+);$", self._text, re.MULTILINE):
            self._nodes[0].execute(statement.replace("'10.0.0.%'", "localhost"))
        text = self._text.replace("bind 127.0.0.1:3306", f"bind 127.0.0.1:{self.port}")
        for number, node in enumerate(self._nodes, start=1):
            text = re.sub(rf"\bdb{number}:3306", f"127.0.0.1:{node.port}", text)
        (self.folder / "haproxy.cfg").write_text(text)
        super().start()

    def _program(self) -> list[str | Path]:
        libraries = next(CLUSTER_TREE.glob("usr/lib/*-linux-gnu*"))
        return ["env", f"LD_LIBRARY_PATH={libraries}", CLUSTER_TREE / "usr/sbin/haproxy"]

    def _options(self) -> list[str]:
        return ["-db", "-f", str(self.folder / "haproxy.cfg")]

    def _accepts_clients(self) -> bool:
        """Return whether a node greets through the proxy."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=CONNECT_TIMEOUT_SECONDS) as client:
            return len(client.recv(5)) == 5
