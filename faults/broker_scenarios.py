"""Scenarios on several brokers: one is lost under load, and the bank notices nothing."""

import time
from itertools import pairwise

import redis

from faults.cluster_scenarios import MIX
from faults.scenario_run import ScenarioRun, TimeSpan
from faults.scenarios import scenario
from tests.harness.servers import missing_reason
from tests.harness.wait import wait_until

CONSUMING_SECONDS_MAX = 15.0
WAITED_SECONDS_MAX = 60.0  # a bound of waiting, larger than the one that is judged by
HEARD_SECONDS_MAX = 2.0
OBSERVED_SECONDS = 15.0


@scenario(MIX, exclusive=True, sentinels=True)
def sentinel_master_killed(run: ScenarioRun) -> None:
    """kill -9 of Redis's master: no answer to the bank changes, and workers consume from the next one."""
    calm = run.observe(4)
    started = time.monotonic()
    run.inject("kill -9 the master", run.stack.sentinels.master().kill)
    wait_until(lambda: consumers(run) == len(run.stack.workers), "workers consume", WAITED_SECONDS_MAX)
    seconds = time.monotonic() - started
    run.notes.append(f"workers consume after {seconds:.1f} s")
    run.require(seconds <= CONSUMING_SECONDS_MAX, f"workers consume again after {seconds:.1f} s")
    run.require_latency_as_in(calm, TimeSpan(started, time.monotonic()))


@scenario(
    MIX,
    missing=lambda: missing_reason("RabbitMQ"),
    exclusive=True,
    rabbitmq=True,
    environment={"SWEEP_INTERVAL_SECONDS": "30"},  # so that what is applied was announced by a ring
)
def rabbitmq_first_node_killed(run: ScenarioRun) -> None:
    """kill -9 of the first RabbitMQ node: no answer to the bank changes, and workers hear the next rings."""
    calm = run.observe(6)
    since = run.stack.sql("SELECT UTC_TIMESTAMP(6)")[0][0]
    run.inject("kill -9 node 0", run.stack.rabbitmq.nodes[0].kill)
    faulty = run.observe(OBSERVED_SECONDS)
    run.require_latency_as_in(calm, faulty)
    until = run.stack.sql("SELECT UTC_TIMESTAMP(6)")[0][0]
    applied = run.stack.sql(
        "SELECT applied_at FROM ingest_webhook WHERE applied_at BETWEEN %s AND %s ORDER BY 1", since, until
    )
    moments = [since, *(moment for (moment,) in applied), until]
    silence = max((later - earlier).total_seconds() for earlier, later in pairwise(moments))
    run.notes.append(f"nothing applied for {silence:.1f} s")
    run.require(silence <= HEARD_SECONDS_MAX, f"rings were not heard for {silence:.1f} s")


def consumers(run: ScenarioRun) -> int:
    """Return the number of workers that wait for messages of the current master; 0 without a master."""
    master = run.stack.sentinels.master()
    if not master.is_running():
        return 0
    with redis.Redis(port=master.port) as client:
        return sum(each["cmd"] == "brpop" for each in client.client_list())
