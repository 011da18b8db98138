"""What clusters of database servers share: the surface of one server, for ProcfileStack."""

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Generic, TypeVar

from tests.harness.servers import MariaDB, MySQL, ServerGroup

Node = TypeVar("Node", bound=MariaDB | MySQL)


class DatabaseCluster(ServerGroup, Generic[Node]):
    """Nodes on loopback ports. Sessions and `pid` are those of the first node that takes writes."""

    nodes: Sequence[Node]
    session_init = ""

    def members(self) -> Sequence[Node]:
        return self.nodes

    @abstractmethod
    def start(self) -> None:
        """Start all nodes; wait until each is part of the cluster."""

    @abstractmethod
    def first(self) -> Node:
        """Return the first node that takes writes, which clients that list all hosts use."""

    @property
    def url(self) -> str:
        """Return a DATABASE_URL with all nodes, in their order."""
        return f"mysql://root@{','.join(f'{node.host}:{node.port}' for node in self.nodes)}/prihod"

    @property
    def socket_path(self) -> Path:
        return self.first().socket_path

    @property
    def folder(self) -> Path:
        return self.nodes[0].folder

    @property
    def pid(self) -> int:
        return self.first().pid

    def checksums(self) -> list[dict[str, Any]]:
        """Return the checksum of each table, for each node."""
        return [self._checksums(node) for node in self.nodes]

    def _checksums(self, node: Node) -> dict[str, Any]:
        with closing(node.session()) as session, session.cursor() as cursor:
            if self.session_init:
                cursor.execute(self.session_init)
            cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()")
            names = [name for (name,) in cursor.fetchall()]
            cursor.execute(f"CHECKSUM TABLE {', '.join(names)}")
            return dict(cursor.fetchall())
