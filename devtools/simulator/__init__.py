"""A simulated bank: delivers webhooks over HTTP, then verifies that the server's balances are exact.

It uses only the server's HTTP interface, never the database. Start with `run`. Amounts are whole kopecks;
the two sides exchange rubles.
"""

import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby
from multiprocessing.pool import ThreadPool
from operator import attrgetter

from devtools.simulator.client import Client, SimulationError
from devtools.simulator.sender import DeliveryResult, Sender, find_wrong_responses
from devtools.simulator.verifier import find_differences
from devtools.simulator.workload import Plan, build_workload

__all__ = ["Plan", "ProgressCallback", "Report", "SimulationError", "run"]

ProgressCallback = Callable[[str, int, int], None]  # phase, done, total


@dataclass(frozen=True, kw_only=True)
class Report:
    """Each delivery counts once, by its final response; its latency runs from its scheduled time to that."""

    seed: int
    organizations: int
    organizations_exact: int
    responses: dict[str, int]
    retries: int
    p50_ms: float
    p99_ms: float
    rate: float
    differences: list[str]

    @property
    def exact(self) -> bool:
        return not self.differences


def run(plan: Plan, on_progress: ProgressCallback = lambda *_: None) -> Report:
    """Deliver, wait until everything is posted, then compare balances and histories.

    Raise SimulationError if the server is unreachable or is no Prihod.
    """
    workload = build_workload(plan)
    client = Client(plan.url, plan.connections, plan.timeout_seconds, plan.signing_key, plan.api_key)
    with closing(client), ThreadPool(plan.connections) as threads:
        client.get(f"/api/organizations/{workload[0].operation.inn}/balance/", attempts_max=1)
        sender = Sender(client, plan.rate)
        started_at = time.monotonic()
        results: list[DeliveryResult] = []
        for result in threads.imap_unordered(sender.deliver, enumerate(workload)):
            results.append(result)
            on_progress("delivering", len(results), len(workload))
        seconds = time.monotonic() - started_at
        operations = sorted(
            (each.operation for each in workload if each.kind == "first"), key=attrgetter("inn")
        )
        by_inn = [
            list(operations_of_inn) for _, operations_of_inn in groupby(operations, key=attrgetter("inn"))
        ]
        deadline = time.monotonic() + plan.timeout_seconds
        compare = partial(find_differences, client, sender.acknowledged, deadline)
        differences: list[list[str]] = []
        for found in threads.imap_unordered(compare, by_inn):
            differences.append(found)
            on_progress("comparing", len(differences), len(by_inn))
    latencies_ms = sorted(result.latency_seconds * 1000 for result in results)
    return Report(
        seed=plan.seed,
        organizations=len(by_inn),
        organizations_exact=differences.count([]),
        responses=dict(Counter(result.response.outcome for result in results)),
        retries=sum(result.response.attempts - 1 for result in results),
        p50_ms=round(latencies_ms[len(latencies_ms) // 2], 2),
        p99_ms=round(latencies_ms[len(latencies_ms) * 99 // 100], 2),
        rate=round(len(workload) / seconds, 1),
        differences=[*find_wrong_responses(results), *chain.from_iterable(differences)],
    )
