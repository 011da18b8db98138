"""A private group of three MySQL servers with Group Replication in single-primary mode."""

import os
import signal
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.harness.database_cluster import DatabaseCluster
from tests.harness.servers import MYSQL_TREE, MySQL, free_port
from tests.harness.wait import wait_until

MEMBERS = 3
JOIN_SECONDS_MAX = 120.0
# A dead member is suspected after 5 s, which MySQL does not let one shorten, and expelled at once. With a
# longer timeout, members look only every 15 s whether it is over: 16 s with 1.
EXPEL_SECONDS = 0
WITHOUT_MAJORITY_SECONDS = 5
MEMBER_STATE = (
    "SELECT member_state FROM performance_schema.replication_group_members WHERE member_id = @@server_uuid"
)


class GroupMember(MySQL):
    """`ports` are those of the group's communication; `number` counts from 0."""

    session_init = ""
    init_sql = ""  # it would be a transaction that the group lacks

    def __init__(
        self, number: int, group: str, ports: Sequence[int], settings: Sequence[str], *, data: Path
    ) -> None:
        super().__init__(settings, data=data)
        self.number = number
        self.port = free_port()
        self._group = group
        self._ports = ports

    @property
    def tcp_url(self) -> str:
        return f"mysql://root@127.0.0.1:{self.port}/prihod"

    def _options(self) -> list[str]:
        seeds = ",".join(f"127.0.0.1:{port}" for port in self._ports)
        group = {
            "group-name": self._group,
            "local-address": f"127.0.0.1:{self._ports[self.number]}",
            "group-seeds": seeds,
            "start-on-boot": "OFF",
            "member-expel-timeout": EXPEL_SECONDS,
            # Without it a primary without a majority lets commits wait for ever, and calls itself ONLINE.
            "unreachable-majority-timeout": WITHOUT_MAJORITY_SECONDS,
            "exit-state-action": "READ_ONLY",
            "consistency": "BEFORE_ON_PRIMARY_FAILOVER",
        }
        return [
            *(option for option in super()._options() if option != "--skip-networking"),
            "--bind-address=127.0.0.1",
            f"--port={self.port}",
            f"--server-id={self.number + 1}",
            "--report-host=127.0.0.1",
            "--gtid-mode=ON",
            "--enforce-gtid-consistency=ON",
            # Else a restarted member takes writes of its own until it has joined.
            "--super-read-only=ON",
            f"--plugin-dir={MYSQL_TREE / 'usr/lib/mysql/plugin'}",
            "--plugin-load-add=group_replication.so",
            *(f"--loose-group-replication-{name}={value}" for name, value in group.items()),
        ]

    def start(self) -> None:
        """Start the server without joining. Each copy of the template gets an identity of its own."""
        data = self.folder / "data"
        if not data.exists():
            self._run_once(["cp", "-r", "--sparse=always", f"{self._original}/.", data])
            (data / "auto.cnf").unlink(missing_ok=True)
        super().start()

    def join(self, *, bootstrap: bool = False) -> None:
        """Join the group, or found it; wait until this member is online."""
        self.execute(
            "CHANGE REPLICATION SOURCE TO SOURCE_USER = 'root' FOR CHANNEL 'group_replication_recovery'"
        )
        self.execute(f"SET GLOBAL group_replication_bootstrap_group = {int(bootstrap)}")
        self.execute("START GROUP_REPLICATION")
        self.execute("SET GLOBAL group_replication_bootstrap_group = 0")
        wait_until(self.is_online, f"member {self.number} is online", JOIN_SECONDS_MAX, log=self.log_end)

    def execute(self, statement: str) -> Any:
        with closing(self.session()) as session, session.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall()

    def is_online(self) -> bool:
        if not self.is_running():
            return False
        with suppress(Exception):
            return self.execute(MEMBER_STATE) == (("ONLINE",),)
        return False

    def is_primary(self) -> bool:
        with suppress(Exception):
            return self.is_online() and self.execute("SELECT @@super_read_only") == ((0,),)
        return False


class ReplicationGroup(DatabaseCluster[GroupMember]):
    """Three members, of which the first one founds the group."""

    name = "MySQL"

    def __init__(self, *, data: Path, settings: Sequence[str] = ()) -> None:
        ports = [free_port() for _ in range(MEMBERS)]
        group = str(uuid4())
        self.nodes = [GroupMember(number, group, ports, settings, data=data) for number in range(MEMBERS)]

    def first(self) -> GroupMember:
        """Return the primary; the first member if there is none."""
        return next((node for node in self.nodes if node.is_primary()), self.nodes[0])

    def start(self) -> None:
        for number, node in enumerate(self.nodes):
            node.start()
            node.join(bootstrap=number == 0)

    def heal(self) -> None:
        """Continue frozen members; restart and rejoin killed ones."""
        for node in self.nodes:
            if node.is_running():
                os.kill(node.pid, signal.SIGCONT)
        for node in self.nodes:
            if not node.is_running():
                node.start()
        if not any(node.is_online() for node in self.nodes):
            newest = self.newest()
            newest.execute("STOP GROUP_REPLICATION")  # it may have left the group by an error
            newest.join(bootstrap=True)
        for node in self.nodes:
            if not node.is_online():
                node.execute("STOP GROUP_REPLICATION")
                node.join()

    def newest(self) -> GroupMember:
        """Return the member that has the transactions of all others."""
        sets = [node.execute("SELECT @@gtid_executed")[0][0].replace("\n", "") for node in self.nodes]

        def has_all(node: GroupMember) -> bool:
            subsets = ", ".join(f"GTID_SUBSET('{each}', @@gtid_executed)" for each in sets)
            return all(node.execute(f"SELECT {subsets}")[0])

        return next(node for node in self.nodes if has_all(node))
