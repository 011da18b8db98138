"""deploy/haproxy_group_replication.cfg in front of a real MySQL group."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.harness.group_replication import MEMBERS, GroupMember, ReplicationGroup
from tests.harness.haproxy import FOR_GROUP_REPLICATION, HAProxy
from tests.harness.servers import missing_reason, servers_are_required
from tests.harness.templates import empty_template
from tests.harness.wait import wait_until
from tests.markers import sqlite_run_only

MySQLdb = pytest.importorskip("MySQLdb")
pytestmark = [sqlite_run_only, pytest.mark.long, pytest.mark.timeout(600)]
# MySQL's default, with which a primary calls itself ONLINE and PRIMARY for as long as it lacks a majority.
WAITS_FOR_EVER = "--loose-group-replication-unreachable-majority-timeout=0"
MEMBER_STATES = (
    "SELECT member_state, member_role FROM performance_schema.replication_group_members ORDER BY 1"
)
SECONDS_MAX = 60.0


@pytest.fixture
def group() -> Iterator[ReplicationGroup]:
    if reasons := list(filter(None, map(missing_reason, ("MySQL", "HAProxy", "mysqlclient")))):
        (pytest.fail if servers_are_required() else pytest.skip)("; ".join(reasons))
    with ReplicationGroup(data=empty_template("mysql"), settings=[WAITS_FOR_EVER]) as group:
        yield group


def test_group_proxy_follows_the_primary_and_refuses_one_without_a_majority(group: ReplicationGroup) -> None:
    first, second, third = group.nodes
    with HAProxy(group.nodes, FOR_GROUP_REPLICATION) as proxy:
        wait_until(lambda: ports_behind(proxy) == {first.port}, "only the primary is used", SECONDS_MAX)

        first.kill()
        survivors = ({second.port}, {third.port})
        wait_until(lambda: ports_behind(proxy) in survivors, "the next primary is used", SECONDS_MAX)
        primary, other = (second, third) if second.is_primary() else (third, second)
        assert ports_behind(proxy) == {primary.port}

        other.kill()  # one of two is no majority
        wait_until(lambda: is_alone(primary), "the primary misses the other", SECONDS_MAX)
        wait_until(lambda: ports_behind(proxy) == {None}, "no connection is accepted", SECONDS_MAX)
        assert is_alone(primary)
        assert primary.is_primary()


def is_alone(primary: GroupMember) -> bool:
    return primary.execute(MEMBER_STATES) == (("ONLINE", "PRIMARY"), ("UNREACHABLE", "SECONDARY"))


def ports_behind(proxy: HAProxy) -> set[int | None]:
    """Return the ports of several connections, over which the proxy takes turns."""
    return {port_behind(proxy) for _ in range(2 * MEMBERS)}


def port_behind(proxy: HAProxy) -> int | None:
    """Return the port of the member that the proxy connects to; None if it refuses."""
    try:
        with (
            closing(MySQLdb.connect(host="127.0.0.1", port=proxy.port, user="root")) as session,
            session.cursor() as cursor,
        ):
            cursor.execute("SELECT @@port")
            return int(cursor.fetchone()[0])
    except MySQLdb.Error:
        return None
