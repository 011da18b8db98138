"""A private MariaDB Galera cluster of three nodes on loopback ports.

    with GaleraCluster() as cluster:
        run_something(DATABASE_URL=cluster.url)

Its nodes run as an unprivileged user: as root the state transfer by rsync fails.
"""

import os
import re
import signal
import subprocess
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.harness.database_cluster import DatabaseCluster
from tests.harness.namespaces import Namespaces
from tests.harness.servers import CLUSTER_TREE, MariaDB, ServerFailed, free_port
from tests.harness.wait import wait_until

NODES = 3
LOOPBACK = "127.0.0.1"
UNPRIVILEGED_USER = "65534"  # its id
# The outage after a node's death or freeze, about a second shorter; Galera's default is PT5S.
SUSPECT_TIMEOUT = "PT2S"
JOIN_SECONDS_MAX = 120.0
BOOTSTRAP = "--wsrep-new-cluster"
_RECOVERED = re.compile(r"Recovered position: (\S+):(-?\d+)")


class GaleraNode(MariaDB):
    """`ports` are those of the nodes' replication, `namespaces` their networks; `number` counts from 0."""

    name = "Galera"
    session_init = "SET SESSION wsrep_sync_wait = 1"

    def __init__(
        self,
        number: int,
        ports: Sequence[int],
        *,
        data: Path | None = None,
        namespaces: Namespaces | None = None,
    ) -> None:
        super().__init__(data=data)
        self._network = namespaces.prefix(number) if namespaces else []
        self._hosts = namespaces.hosts if namespaces else [LOOPBACK] * NODES
        self.host = self._hosts[number]
        self.number = number
        self.port = free_port()
        self._ports = ports
        self._transfer_port, self._increment_port = free_port(), free_port()
        self._bootstraps = False
        self._position: list[str] = []
        if os.geteuid() == 0:
            os.chown(self.folder, int(UNPRIVILEGED_USER), int(UNPRIVILEGED_USER))
            for parent in self.folder.parents:  # a run of the suite has a folder of its own
                if parent.name.startswith("prihod-"):
                    parent.chmod(0o711)

    def _program(self) -> list[str | Path]:
        path = os.pathsep.join([str(CLUSTER_TREE / "usr/bin"), "/usr/sbin", "/usr/bin", "/sbin", "/bin"])
        libraries = next(CLUSTER_TREE.glob("usr/lib/*-linux-gnu*"))
        command = ["env", f"PATH={path}", f"LD_LIBRARY_PATH={libraries}", *super()._program()]
        return [*self._network, *self._unprivileged(), *command]

    def _unprivileged(self) -> list[str]:
        """Return the prefix that drops root. A changed user loses the death signal: set it once more."""
        if os.geteuid() != 0:
            return []
        drop = ["setpriv", "--reuid", UNPRIVILEGED_USER, "--regid", UNPRIVILEGED_USER, "--clear-groups", "--"]
        return [*drop, "setpriv", "--pdeathsig", "KILL", "--"]

    def _common_options(self) -> list[str]:
        return [option for option in super()._common_options() if option != "--user=root"]

    def _create_system_tables(self) -> None:
        raise ServerFailed("a Galera node starts with a copy of a template")

    def _options(self) -> list[str]:
        own = f"{self.host}:{self._ports[self.number]}"
        members = ",".join(f"{host}:{port}" for host, port in zip(self._hosts, self._ports, strict=True))
        provider = {
            "gmcast.listen_addr": f"tcp://{own}",
            "ist.recv_addr": f"{self.host}:{self._increment_port}",
            "evs.keepalive_period": "PT0.5S",
            "evs.suspect_timeout": SUSPECT_TIMEOUT,
            "gcache.size": "64M",
        }
        return [
            *(option for option in super()._options() if option != "--skip-networking"),
            f"--bind-address={self.host}",
            f"--port={self.port}",
            "--binlog-format=ROW",
            "--innodb-autoinc-lock-mode=2",
            "--wsrep-on=ON",
            f"--wsrep-provider={CLUSTER_TREE / 'usr/lib/galera/libgalera_smm.so'}",
            "--wsrep-cluster-name=prihod",
            f"--wsrep-cluster-address=gcomm://{members}",
            f"--wsrep-node-name=node{self.number}",
            f"--wsrep-node-address={own}",
            "--wsrep-sst-method=rsync",
            f"--wsrep-sst-receive-address={self.host}:{self._transfer_port}",
            f"--wsrep-provider-options={';'.join(f'{key}={value}' for key, value in provider.items())}",
            *([BOOTSTRAP] if self._bootstraps else []),
            *self._position,
        ]

    @property
    def tcp_url(self) -> str:
        return f"mysql://root@{self.host}:{self.port}/prihod"

    def start(self) -> None:
        """Start and join the cluster; wait until the node takes writes."""
        self.launch()
        self.wait_until_synced()

    def launch(self) -> None:
        """Start without waiting. After a crash, find first how far the node had come."""
        data = self.folder / "data"
        if not data.exists():
            if self._original:
                self._run_once(["cp", "-r", "--sparse=always", f"{self._original}/.", data])
            else:
                data.mkdir()  # a state transfer fills it
            if os.geteuid() == 0:
                self._run_once(["chown", "-R", f"{UNPRIVILEGED_USER}:{UNPRIVILEGED_USER}", self.folder])
        uuid, seqno = self.recovered_position()
        self._position = [] if seqno < 0 else [f"--wsrep-start-position={uuid}:{seqno}"]
        (self.folder / "init.sql").write_text(self.init_sql)
        self._launch()

    def recovered_position(self) -> tuple[str, int]:
        """Return the cluster's id and the number of the last transaction on disk; -1 if there is none.

        Kill the server when it has said so: MariaDB 10.11.19 may wait for its purge for ever when it ends.
        """
        if not (self.folder / "data" / "grastate.dat").exists():
            return "", -1
        self._position = []
        command = [*self._program(), *self._options(), "--wsrep-recover"]
        lines = []
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
            for line in server.stderr or ():
                lines.append(line)
                if found := _RECOVERED.search(line):
                    server.kill()
                    return found[1], int(found[2])
        raise ServerFailed(f"node {self.number} has no position: {''.join(lines)[-2000:]}")

    def bootstrap(self) -> None:
        """Start as the first node of the cluster.

        After all nodes were lost, a person declares that this one has the newest data.
        """
        state = self.folder / "data" / "grastate.dat"
        if state.exists():
            state.write_text(re.sub(r"safe_to_bootstrap: \d", "safe_to_bootstrap: 1", state.read_text()))
        self._bootstraps = True
        try:
            self.start()
        finally:
            self._bootstraps = False

    def execute(self, statement: str) -> Any:
        with closing(self.session()) as session, session.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall()

    def status(self, name: str) -> str:
        return str(self.execute(f"SHOW GLOBAL STATUS LIKE '{name}'")[0][1])

    def is_synced(self) -> bool:
        if not self.is_running() or not self._is_up():
            return False
        with suppress(Exception):
            return self.status("wsrep_ready") == "ON" and self.status("wsrep_local_state") == "4"
        return False

    def wait_until_synced(self) -> None:
        def has_joined_or_ended() -> bool:
            return not self.is_running() or self.is_synced()

        wait_until(has_joined_or_ended, f"node {self.number} is synced", JOIN_SECONDS_MAX, log=self.log_end)
        if not self.is_running():
            raise self._failure("ended instead of joining the cluster")


class GaleraCluster(DatabaseCluster[GaleraNode]):
    """Three nodes, of which the first one bootstraps. `data` is a template of MariaDB.

    isolated: each node has a network namespace, from which it can be cut off.
    """

    name = "Galera"
    session_init = GaleraNode.session_init

    def __init__(self, *, data: Path, isolated: bool = False) -> None:
        ports = [free_port() for _ in range(NODES)]
        self._namespaces = Namespaces(NODES) if isolated else None
        self.nodes = [
            GaleraNode(number, ports, data=data if number == 0 else None, namespaces=self._namespaces)
            for number in range(NODES)
        ]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if self._namespaces:
            self._namespaces.delete()

    @property
    def namespaces(self) -> Namespaces:
        """Those of the nodes. A node that is unplugged there keeps the clients of its socket only."""
        if self._namespaces is None:
            raise TypeError("the nodes have no networks of their own")
        return self._namespaces

    def first(self) -> GaleraNode:
        return next((node for node in self.nodes if node.is_synced()), self.nodes[0])

    def start(self) -> None:
        """Start all nodes; after a crash of all, beginning with the one with the newest data."""
        if self._namespaces and not self._namespaces.exist():
            self._namespaces.create()
        newest = self.newest()
        newest.bootstrap()
        for node in self.nodes:
            if node is not newest:
                node.start()
        if self._namespaces:
            user = f"root@'{self._namespaces.clients}'"
            newest.execute(f"CREATE USER IF NOT EXISTS {user}")
            newest.execute(f"GRANT ALL ON *.* TO {user}")

    def newest(self) -> GaleraNode:
        """Return the stopped node with the newest data."""
        return max(self.nodes, key=lambda node: node.recovered_position()[1])

    def heal(self) -> None:
        """Continue frozen nodes, reconnect others, restart killed ones; wait until all take writes."""
        for number in range(NODES) if self._namespaces else ():
            self.namespaces.plug_in(number)
        running = [node for node in self.nodes if node.is_running()]
        for node in running:
            os.kill(node.pid, signal.SIGCONT)
        if not running:
            self.start()
        for node in self.nodes:
            if not node.is_running():
                node.start()
        wait_until(self._all_agree, "all nodes are members of one view", JOIN_SECONDS_MAX)
        for node in self.nodes:
            node.wait_until_synced()

    def _all_agree(self) -> bool:
        """Return whether no node still believes in a view of before its freeze."""
        with suppress(Exception):
            views = {
                (node.status("wsrep_cluster_conf_id"), node.status("wsrep_cluster_size"))
                for node in self.nodes
            }
            return len(views) == 1 and views.pop()[1] == str(NODES)
        return False
