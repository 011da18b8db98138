"""The entries of docs/runbook.md on lost nodes of a cluster, executed as they are written.

`systemctl start` is the start of the same server by the harness. The fault suite plays the loss of all Galera
nodes.
"""

import re
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.harness.galera import GaleraCluster
from tests.harness.group_replication import MEMBER_STATE, GroupMember, ReplicationGroup
from tests.harness.servers import ROOT, missing_reason, servers_are_required
from tests.harness.templates import empty_template
from tests.harness.wait import wait_until
from tests.markers import sqlite_run_only

MySQLdb = pytest.importorskip("MySQLdb")
pytestmark = [sqlite_run_only, pytest.mark.long, pytest.mark.timeout(900)]
RUNBOOK = " ".join((ROOT / "docs/runbook.md").read_text().split())
SECONDS_MAX = 120.0
REFUSED = 3092  # seen right after a crash, before the group has expelled the dead member


def written(title: str, beginning: str) -> str:
    """Return the statement in the entry `title` of the runbook that begins so."""
    entry = RUNBOOK.partition(f"### {title} ")[2].partition(" ### ")[0]
    return next(each for each in re.findall(r"`([^`]+)`", entry) if each.startswith(beginning))


def skip_without(*names: str) -> None:
    if reasons := list(filter(None, map(missing_reason, (*names, "mysqlclient")))):
        (pytest.fail if servers_are_required() else pytest.skip)("; ".join(reasons))


@pytest.fixture
def galera() -> Iterator[GaleraCluster]:
    skip_without("Galera")
    with GaleraCluster(data=empty_template("mariadb")) as cluster:
        yield cluster


@pytest.fixture
def group() -> Iterator[ReplicationGroup]:
    skip_without("MySQL")
    with ReplicationGroup(data=empty_template("mysql")) as group:
        yield group


def test_galera_node_left_without_quorum_serves_alone_and_the_others_rejoin(galera: GaleraCluster) -> None:
    left, *others = galera.nodes
    for node in others:
        node.kill()
    wait_until(lambda: left.status("wsrep_ready") == "OFF", "the quorum is lost", SECONDS_MAX)
    with pytest.raises(MySQLdb.Error):
        left.execute("CREATE TABLE kept (n INT PRIMARY KEY)")

    left.execute(written("No quorum", "SET GLOBAL wsrep_provider_options"))

    wait_until(left.is_synced, "the node serves alone", SECONDS_MAX)
    left.execute("CREATE TABLE kept (n INT PRIMARY KEY)")
    for node in others:
        node.start()
        assert node.execute("SELECT COUNT(*) FROM kept") == ((0,),)


def test_group_entries_restore_the_group_and_keep_every_row(group: ReplicationGroup) -> None:
    first, second, third = group.nodes
    first.execute("CREATE TABLE kept (n INT PRIMARY KEY)")

    second.kill()
    write(first, 1)
    second.start()
    start = written("A database node is gone", "START GROUP_REPLICATION")
    wait_until(lambda: is_accepted(second, start), "the statement is accepted", SECONDS_MAX)
    wait_until(second.is_online, "the member has joined", SECONDS_MAX)

    second.kill()
    third.kill()
    wait_until(lambda: first.execute(MEMBER_STATE) == (("ERROR",),), "the group is left", SECONDS_MAX)
    restore(group, first)
    assert first.is_primary()

    write(first, 2)
    for member in group.nodes:
        member.kill()
    for member in group.nodes:
        member.start()
    restore(group, group.newest())

    for member in group.nodes:
        assert member.execute("SELECT n FROM kept ORDER BY n") == ((1,), (2,))


def is_accepted(member: GroupMember, statement: str) -> bool:
    try:
        member.execute(statement)
    except MySQLdb.OperationalError as exc:
        if exc.args[0] != REFUSED:
            raise
        return False
    return True


def write(member: GroupMember, n: int) -> None:
    with closing(member.session()) as session, session.cursor() as cursor:
        cursor.execute("INSERT INTO kept VALUES (%s)", [n])
        session.commit()


def restore(group: ReplicationGroup, newest: GroupMember) -> None:
    """Execute what is written for a group that none of its members serves."""
    stop, bootstrap, start = (
        written("All nodes were down", beginning)
        for beginning in ("STOP GROUP", "SET GLOBAL group_replication_bootstrap_group", "START GROUP")
    )
    for statement in (stop, bootstrap, start, bootstrap.replace("= 1", "= 0")):
        newest.execute(statement)
    wait_until(newest.is_primary, "the newest member serves", SECONDS_MAX)
    for member in group.nodes:
        if member is not newest:
            if not member.is_running():
                member.start()
            member.execute(start)
            wait_until(member.is_online, "the member has joined", SECONDS_MAX)
