"""The state of the database cluster that DATABASE_URL lists, as the node of this connection sees it.

A node without a majority answers none of this: it takes no writes, so no connection uses it.
"""

from typing import NamedTuple

from django.db import OperationalError, connection

SELECT_DENIED = 1142
# https://galeracluster.com/library/documentation/galera-status-variables.html
_SIZE, _PAUSED = "wsrep_cluster_size", "wsrep_flow_control_paused_ns"
_CONFLICTS = ("wsrep_local_cert_failures", "wsrep_local_bf_aborts")
_GALERA = f"SHOW GLOBAL STATUS WHERE variable_name IN {(_SIZE, _PAUSED, *_CONFLICTS)}"
# https://dev.mysql.com/doc/refman/8.4/en/group-replication-replication-group-members.html
_GROUP = (
    "SELECT COUNT(*), COALESCE(SUM(IF(member_id = @@server_uuid, count_conflicts_detected, 0)), 0)"
    " FROM performance_schema.replication_group_members"
    " LEFT JOIN performance_schema.replication_group_member_stats USING (member_id)"
    " WHERE member_state = 'ONLINE'"
)


class ClusterStatus(NamedTuple):
    """Nodes that take part, of those that DATABASE_URL lists; what this node has counted since its start."""

    online: int = 1
    listed: int = 1
    conflicts: int = 0  # transactions refused or aborted for another node's
    paused_seconds: float = 0.0  # writes waited because a node applies them more slowly; Galera only

    @property
    def missing(self) -> int:
        return max(self.listed - self.online, 0)


def status() -> ClusterStatus:
    """Return the cluster's status; that of one server without a query if DATABASE_URL lists no other.

    Also if this user can't see a MySQL group's members, which a system check reports (ledger.W004). Raise
    DatabaseError or InterfaceError.
    """
    listed = len(connection.settings_dict.get("HOSTS", ()))
    if not listed:
        return ClusterStatus()
    read = _galera if connection.display_name == "MariaDB" else _group
    online, conflicts, paused_seconds = read()
    return ClusterStatus(online, listed, conflicts, paused_seconds) if online else ClusterStatus()


def _galera() -> tuple[int, int, float]:
    with connection.cursor() as cursor:
        cursor.execute(_GALERA)
        counts = {name.lower(): int(value) for name, value in cursor.fetchall()}
    conflicts = sum(counts.get(name, 0) for name in _CONFLICTS)
    return counts.get(_SIZE, 0), conflicts, counts.get(_PAUSED, 0) / 1e9


def _group() -> tuple[int, int, float]:
    try:
        with connection.cursor() as cursor:
            cursor.execute(_GROUP)
            online, conflicts = map(int, cursor.fetchone())
    except OperationalError as exc:
        if exc.args[0] != SELECT_DENIED:
            raise
        return 0, 0, 0.0
    return online, conflicts, 0.0
