"""A fake bank: delivers webhooks over HTTP and then proves that the server's balances are exact.

It knows the server by its HTTP interface alone and never touches the database. `run` is the whole story.
Money is whole kopecks; rubles are what the two sides write to each other.
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

__all__ = ["AlertLease", "Plan", "Report", "SimulationError", "run"]

ProgressCallback = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Report:
    """Each delivery counts once, by its final answer; its latency lasts from when it was due until then."""

    seed: int
    organizations: int
    organizations_exact: int
    answers: dict[str, int]
    sent_again: int
    p50_ms: float
    p99_ms: float
    rate: float
    differences: list[str]

    @property
    def exact(self) -> bool:
        return not self.differences


def run(plan: Plan, watch: ProgressCallback = lambda *_: None) -> Report:
    """Deliver, wait until all is posted, compare; `watch` hears the phase, how much is done, and of how much.

    Raises SimulationError when the server is not there, or is not the right one.
    """
    deck = build_workload(plan)
    server = Client(plan.url, plan.connections, plan.timeout_seconds, plan.signing_key, plan.api_key)
    with closing(server), ThreadPool(plan.connections) as threads:
        server.ask(f"/api/organizations/{deck[0].operation.inn}/balance/", attempts_max=1)
        bank = Sender(server, plan.rate)
        started_at = time.monotonic()
        outcomes: list[DeliveryResult] = []
        for outcome in threads.imap_unordered(bank.deliver, enumerate(deck)):
            outcomes.append(outcome)
            watch("delivering", len(outcomes), len(deck))
        seconds = time.monotonic() - started_at
        operations = sorted((one.operation for one in deck if one.kind == "first"), key=attrgetter("inn"))
        accounts = [list(own) for _, own in groupby(operations, key=attrgetter("inn"))]
        compare = partial(
            find_differences, server, bank.acknowledged, time.monotonic() + plan.timeout_seconds
        )
        found: list[list[str]] = []
        for differences in threads.imap_unordered(compare, accounts):
            found.append(differences)
            watch("comparing", len(found), len(accounts))
    latencies_ms = sorted(outcome.latency_seconds * 1000 for outcome in outcomes)
    return Report(
        seed=plan.seed,
        organizations=len(accounts),
        organizations_exact=found.count([]),
        answers=dict(Counter(outcome.answer.word for outcome in outcomes)),
        sent_again=sum(outcome.answer.attempts - 1 for outcome in outcomes),
        p50_ms=round(latencies_ms[len(latencies_ms) // 2], 2),
        p99_ms=round(latencies_ms[len(latencies_ms) * 99 // 100], 2),
        rate=round(len(deck) / seconds, 1),
        differences=[*find_wrong_responses(outcomes), *chain.from_iterable(found)],
    )
