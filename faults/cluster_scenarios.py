"""Scenarios on clusters of databases: any one node is lost, or all, under load.

They end with equal checksums of every table on all nodes.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

from faults.scenario_run import ScenarioRun
from faults.scenarios import scenario
from tests.harness import namespaces
from tests.harness.bank_client import BankDelivery, DeliveryGenerator, DeliveryMix, KeepAliveConnection
from tests.harness.servers import missing_reason
from tests.harness.wait import wait_until

MIX = DeliveryMix(duplicates=0.2, conflicts=0.0, invalid=0.02)
BACK_SECONDS_MAX = 60.0  # a killed node, from its start
SERVING_SECONDS_MAX = 60.0  # a bound of waiting, larger than each bound that a scenario judges by
DRAIN_SECONDS_MAX = 5.0
EQUAL_SECONDS_MAX = 30.0
PAIRS = 320  # deliveries to both webs


def on_galera(
    also_missing: Callable[[], str | None] = lambda: None, **stack: Any
) -> Callable[[Callable[[ScenarioRun], None]], None]:
    def missing() -> str | None:
        return missing_reason("Galera") or also_missing()

    return scenario(MIX, missing=missing, exclusive=True, galera=True, **stack)


@on_galera()
def galera_writer_killed(run: ScenarioRun) -> None:
    """kill -9 of the Galera node that takes the writes, five times; each rejoins by itself."""
    run.observe(3)
    for _ in range(5):
        kill_writer(run)
    require_equal_nodes(run)


@on_galera()
def galera_writer_killed_once(run: ScenarioRun) -> None:
    """kill -9 of the Galera node that takes the writes, once; it is reported as missing."""
    run.observe(2)
    kill_writer(run, require_one_is_missing)
    require_equal_nodes(run)


def kill_writer(run: ScenarioRun, meanwhile: Callable[[ScenarioRun], None] = lambda run: None) -> None:
    node = run.stack.cluster.first()
    with judged_outage(run, seconds_max=5):
        run.inject(f"kill -9 node {node.number}", node.kill)
    meanwhile(run)
    started = time.monotonic()
    node.start()
    back = time.monotonic() - started
    run.require(back <= BACK_SECONDS_MAX, f"node {node.number} was back after {back:.1f} s")
    run.observe(1)


def require_one_is_missing(run: ScenarioRun) -> None:
    status = "from monitoring import cluster; print(cluster.status().missing)"
    missing = run.stack.manage("shell", "--no-imports", "--command", status).stdout.strip()
    run.require(missing == "1", f"{missing or 'unknown'} nodes are missing")


@on_galera()
def galera_writer_frozen(run: ScenarioRun) -> None:
    """SIGSTOP of the Galera node that takes the writes for 15 s; clients list all hosts."""
    run.observe(3)
    freeze_writer(run, seconds_max=8)


@on_galera(lambda: missing_reason("HAProxy"), haproxy=True)
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


@on_galera(
    webs=2,
    environments={
        "web": {"DATABASE_URL": "{node0}", "READ_DATABASE_URL": "{node1}"},
        "web2": {"DATABASE_URL": "{node1}"},
        **{name: {"DATABASE_URL": "{node2}"} for name in ("worker1", "worker2", "beat")},
    },
)
def galera_web_on_two(run: ScenarioRun) -> None:
    """No fault, web on two Galera nodes, workers on the third; many deliveries come to both at one moment."""
    run.observe(2)
    run.inject("the same to both", lambda: None)
    deliveries = DeliveryGenerator(run.rng, MIX).batch(PAIRS)  # which the bank doesn't repeat elsewhere
    pairs = [deliver_to_both(run, delivery) for delivery in deliveries]
    run.drain()
    wrong = [pair for pair in pairs if not is_taken_once(pair)]
    run.require(not wrong, f"{len(wrong)} of {len(pairs)} pairs were not taken once: {wrong[:2]}")
    unknown = run.bank.count("unknown")
    run.require(not unknown, f"{unknown} deliveries were answered 503 or not at all")
    retried = sum(worker.log_count("transaction retried") for worker in run.stack.workers)
    run.notes.append(f"{len(pairs)} pairs, {retried} retries of workers")
    run.require(not retried, f"{retried} transactions of workers were retried")
    require_no_errors(run)
    require_equal_nodes(run)


def deliver_to_both(run: ScenarioRun, delivery: BankDelivery) -> list[str]:
    """Send a delivery to both webs at once; return the responses."""
    with ThreadPoolExecutor() as pool, ExitStack() as stack:
        ports = run.stack.web_ports.values()
        webs = [stack.enter_context(closing(KeepAliveConnection(port))) for port in ports]
        return [each.response for each in pool.map(partial(run.bank.deliver, delivery), webs)]


def is_taken_once(responses: Sequence[str]) -> bool:
    counts = [sum(text in each for each in responses) for text in ('"success"', '"already processed"')]
    return counts == [1, len(responses) - 1]


@on_galera(
    namespaces.missing_reason, isolated=True, webs=2, environments={"web2": {"DATABASE_URL": "{socket0}"}}
)
def galera_node_cut_off(run: ScenarioRun) -> None:
    """The network of the Galera node that takes the writes is cut for 15 s; a web beside it answers 503."""
    run.observe(3)
    network, web2 = run.stack.galera.namespaces, run.stack.web_ports["web2"]
    with judged_outage(run, seconds_max=8):
        run.inject("cut off node 0", network.unplug, 0)
        run.observe(7)  # then the node knows
        with closing(KeepAliveConnection(web2)) as web:
            minority = [run.bank.deliver(each, web).response for each in run.bank.deliveries.batch(20)]
        run.observe(8)
        network.plug_in(0)
    started = time.monotonic()
    wait_until(run.stack.galera.nodes[0].is_synced, "node 0 is back", BACK_SECONDS_MAX)
    run.notes.append(f"the node was back {time.monotonic() - started:.1f} s after the network")
    others = [response for response in minority if not response.startswith("503")]
    run.require(not others, f"the minority answered {others}")
    require_equal_nodes(run)


@scenario(MIX, missing=lambda: missing_reason("MySQL"), exclusive=True, group_replication=True)
def group_replication_primary_killed(run: ScenarioRun) -> None:
    """kill -9 of the primary of a MySQL group, five times; it is restarted at once and joins again.

    It takes five minutes, because a member needs half a minute to be back.
    """
    run.observe(3)
    for number in range(5):
        primary = run.stack.cluster.first()
        with judged_outage(run, seconds_max=10):
            run.inject(f"kill -9 member {primary.number}", primary.kill)
            primary.start()
        if number == 0:
            require_one_is_missing(run)
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


READS = 1000
COUNT_STALE = f"""
from django.db import connections
with connections["default"].cursor() as writer, connections["read"].cursor() as reader:
    writer.execute("CREATE TABLE IF NOT EXISTS freshness (n INT PRIMARY KEY)")
    for option in ("", "SET SESSION wsrep_sync_wait = 0"):
        writer.execute("REPLACE INTO freshness VALUES (0)")
        reader.execute(option or "SELECT 1")
        stale = 0
        for n in range(1, {READS} + 1):
            writer.execute("UPDATE freshness SET n = %s", [n])
            reader.execute("SELECT n FROM freshness")
            stale += reader.fetchone() != (n,)
        print(stale)
        writer.execute("DELETE FROM freshness")
    writer.execute("DROP TABLE freshness")
"""


@on_galera()
def galera_reads_after_writes(run: ScenarioRun) -> None:
    """No fault; 1000 reads by READ_DATABASE_URL, each right after a write to another node."""
    run.observe(2)
    run.inject("reads", lambda: None)
    nodes = run.stack.cluster.nodes
    urls = {"DATABASE_URL": nodes[0].tcp_url, "READ_DATABASE_URL": nodes[1].tcp_url}
    printed = run.stack.manage("shell", "--no-imports", "--command", COUNT_STALE, **urls).stdout.split()
    run.notes.append(f"stale of {READS} reads: {' and without wsrep_sync_wait '.join(printed)}")
    run.require(printed[:1] == ["0"], f"{printed} reads were stale")
    run.require(printed[1:] != ["0"], "the other node is never late, so nothing was shown")
    require_equal_nodes(run)


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
