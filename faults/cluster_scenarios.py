"""Scenarios on clusters of databases and brokers: any one node is lost, or all, under load.

Those of databases end with equal checksums of every table on all nodes.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import redis

from faults.scenario_run import ScenarioRun, TimeSpan
from faults.scenarios import scenario
from tests.harness.bank_client import DeliveryMix
from tests.harness.servers import missing_reason
from tests.harness.wait import wait_until

MIX = DeliveryMix(duplicates=0.2, conflicts=0.0, invalid=0.02)
BACK_SECONDS_MAX = 60.0  # a killed node, from its start
SERVING_SECONDS_MAX = 60.0  # a bound of waiting, larger than each bound that a scenario judges by
DRAIN_SECONDS_MAX = 5.0
EQUAL_SECONDS_MAX = 30.0
CONSUMING_SECONDS_MAX = 15.0


def galera_and_haproxy() -> str | None:
    return missing_reason("Galera") or missing_reason("HAProxy")


def on_galera(**stack: Any) -> Callable[[Callable[[ScenarioRun], None]], None]:
    return scenario(MIX, missing=lambda: missing_reason("Galera"), exclusive=True, galera=True, **stack)


@on_galera()
def galera_writer_killed(run: ScenarioRun) -> None:
    """kill -9 of the Galera node that takes the writes, five times; each rejoins by itself."""
    run.observe(3)
    for _ in range(5):
        kill_writer(run)
    require_equal_nodes(run)


@on_galera()
def galera_writer_killed_once(run: ScenarioRun) -> None:
    """kill -9 of the Galera node that takes the writes, once."""
    run.observe(2)
    kill_writer(run)
    require_equal_nodes(run)


def kill_writer(run: ScenarioRun) -> None:
    node = run.stack.cluster.first()
    with judged_outage(run, seconds_max=5):
        run.inject(f"kill -9 node {node.number}", node.kill)
    started = time.monotonic()
    node.start()
    back = time.monotonic() - started
    run.require(back <= BACK_SECONDS_MAX, f"node {node.number} was back after {back:.1f} s")
    run.observe(1)


@on_galera()
def galera_writer_frozen(run: ScenarioRun) -> None:
    """SIGSTOP of the Galera node that takes the writes for 15 s; clients list all hosts."""
    run.observe(3)
    freeze_writer(run, seconds_max=8)


@scenario(MIX, missing=galera_and_haproxy, exclusive=True, galera=True, haproxy=True)
def galera_writer_frozen_behind_haproxy(run: ScenarioRun) -> None:
    """The same with deploy/haproxy.cfg in front, which closes the sessions of a frozen node."""
    run.observe(3)
    freeze_writer(run, seconds_max=5)


def freeze_writer(run: ScenarioRun, seconds_max: float) -> None:
    node = run.stack.cluster.first()
    with judged_outage(run, seconds_max):
        run.inject(f"SIGSTOP node {node.number}", os.kill, node.pid, signal.SIGSTOP)
        run.observe(15)
        os.kill(node.pid, signal.SIGCONT)
    require_equal_nodes(run)


@on_galera()
def galera_all_killed(run: ScenarioRun) -> None:
    """kill -9 of all three Galera nodes at once; a person bootstraps the one with the newest data."""
    run.observe(3)
    for node in run.stack.cluster.nodes:
        run.inject(f"kill -9 node {node.number}", node.kill)
    newest = run.stack.cluster.newest()
    with judged_outage(run, seconds_max=15):
        run.inject("bootstrap", newest.bootstrap)
    run.stack.cluster.heal()
    require_equal_nodes(run)


@on_galera(
    workers=3,
    environments={f"worker{number + 1}": {"DATABASE_URL": f"{{node{number}}}"} for number in range(3)},
)
def galera_workers_on_all(run: ScenarioRun) -> None:
    """No fault, one worker on each Galera node: commit conflicts are retried without a trace."""
    run.observe(8)
    run.inject("workers on all nodes", lambda: None)
    conflicts = sum(int(node.status("wsrep_local_cert_failures")) for node in run.stack.cluster.nodes)
    aborted = sum(int(node.status("wsrep_local_bf_aborts")) for node in run.stack.cluster.nodes)
    retried = sum(worker.log_count("transaction retried") for worker in run.stack.workers)
    run.notes.append(f"{conflicts + aborted} conflicts, {retried} retries")
    run.require(conflicts + aborted, "no two nodes ever conflicted")
    again = sum(worker.log_count("batch retried after checking") for worker in run.stack.workers)
    run.require(
        not again, f"{again} batches were retried for a key that a certified lock should have kept free"
    )
    run.drain()
    require_no_errors(run)
    run.require(run.drain_seconds <= DRAIN_SECONDS_MAX, f"drained after {run.drain_seconds:.1f} s")
    require_equal_nodes(run)


@scenario(MIX, missing=lambda: missing_reason("MySQL"), exclusive=True, group_replication=True)
def group_replication_primary_killed(run: ScenarioRun) -> None:
    """kill -9 of the primary of a MySQL group, five times; it is restarted and joins again."""
    run.observe(3)
    for _ in range(5):
        primary = run.stack.cluster.first()
        with judged_outage(run, seconds_max=10):
            run.inject(f"kill -9 member {primary.number}", primary.kill)
        run.stack.cluster.heal()
        run.observe(1)
    require_equal_nodes(run)


@scenario(MIX, missing=lambda: missing_reason("MySQL"), exclusive=True, group_replication=True)
def group_replication_majority_lost(run: ScenarioRun) -> None:
    """kill -9 of both secondaries: without a majority no delivery is answered 200."""
    run.observe(3)
    primary = run.stack.cluster.first()
    for member in run.stack.cluster.nodes:
        if member is not primary:
            run.inject(f"kill -9 member {member.number}", member.kill)
    run.observe(1)
    without = run.observe(12)
    served = len(run.bank.latencies(without.since, without.until))
    run.require(not served, f"{served} deliveries were answered 200 without a majority")
    require_equal_nodes(run)


@scenario(MIX, exclusive=True, sentinels=True)
def sentinel_master_killed(run: ScenarioRun) -> None:
    """kill -9 of Redis's master: no answer to the bank changes, and workers consume from the next one."""
    calm = run.observe(4)
    started = time.monotonic()
    run.inject("kill -9 the master", run.stack.sentinels.master().kill)
    wait_until(lambda: consumers(run) == len(run.stack.workers), "workers consume", SERVING_SECONDS_MAX)
    seconds = time.monotonic() - started
    run.notes.append(f"workers consume after {seconds:.1f} s")
    run.require(seconds <= CONSUMING_SECONDS_MAX, f"workers consume again after {seconds:.1f} s")
    run.require_latency_as_in(calm, TimeSpan(started, time.monotonic()))


def consumers(run: ScenarioRun) -> int:
    """Return the number of workers that wait for messages of the current master; 0 without a master."""
    master = run.stack.sentinels.master()
    if not master.is_running():
        return 0
    with redis.Redis(port=master.port) as client:
        return sum(each["cmd"] == "brpop" for each in client.client_list())


@contextmanager
def judged_outage(run: ScenarioRun, seconds_max: float) -> Iterator[None]:
    """Require that the bank's longest time without a 200, from the block's start on, is short enough.

    After the block wait for ten deliveries that began later and were answered 200.
    """
    since = time.monotonic()
    yield
    fault_over = time.monotonic()
    wait_until(lambda: served_since(run, fault_over) >= 10, "the bank is served again", SERVING_SECONDS_MAX)
    answered = [since, *answered_since(run, since)]
    outage = max(later - earlier for earlier, later in pairwise(answered))
    run.notes.append(f"outage {outage:.1f} s")
    run.require(outage <= seconds_max, f"no 200 for {outage:.1f} s, {seconds_max:.0f} s allowed")


def served_since(run: ScenarioRun, since: float) -> int:
    return sum(attempt.outcome == "ok" and attempt.started_at >= since for attempt in list(run.bank.history))


def answered_since(run: ScenarioRun, since: float) -> list[float]:
    """Return the moments at which a delivery was answered 200."""
    moments = (e.started_at + e.seconds for e in list(run.bank.history) if e.outcome == "ok")
    return sorted(moment for moment in moments if moment >= since)


def require_no_errors(run: ScenarioRun) -> None:
    errors = sum(worker.log_count('"level": "error"') for worker in run.stack.workers)
    run.require(not errors, f"{errors} ERROR lines of workers")
    failed = run.stack.sql("SELECT COUNT(*) FROM ingest_webhook WHERE status = 'failed'")[0][0]
    run.require(not failed, f"{failed} webhooks failed")


def require_equal_nodes(run: ScenarioRun) -> None:
    """Drain, and require equal tables; try again if a heartbeat was written between two nodes' checksums."""
    run.drain()
    until = time.monotonic() + EQUAL_SECONDS_MAX
    while (different := different_tables(run)) and time.monotonic() < until:
        time.sleep(1)
    run.require(not different, f"nodes differ in {', '.join(different)}")


def different_tables(run: ScenarioRun) -> list[str]:
    first, *others = run.stack.cluster.checksums()
    return sorted(name for name in first if any(first[name] != other.get(name) for other in others))
