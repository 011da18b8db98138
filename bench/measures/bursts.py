"""Bursts on as many connections at once, of new operations and of one operation, on MariaDB and SQLite."""

import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator

from bench.load import random_webhooks
from bench.measurements import Measurement, at_most
from bench.systems import System, drain
from tests.harness.bursts import send_burst
from tests.harness.procfile_stack import ProcfileStack

MEASURE = "bursts"
CONNECTIONS = (100, 500, 1000)
KINDS = ("new operations", "one operation")
SECONDS_MAX = 5.0


def measure(quick: bool, log: Callable[[str], None]) -> Iterator[Measurement]:
    rounds = 1 if quick else 3
    refused = []
    for database, embedded in (("MariaDB", False), ("SQLite", True)):
        seconds: dict[tuple[str, int], list[float]] = defaultdict(list)
        with System.PRIHOD.stack(embedded=embedded) as stack:
            burst(stack, KINDS[0], CONNECTIONS[0])  # warms up
            for number in range(1, rounds + 1):
                for connections in CONNECTIONS:
                    for kind in KINDS:
                        took, not_ok = burst(stack, kind, connections)
                        seconds[kind, connections].append(took)
                        refused.append(not_ok)
                results = ", ".join(f"{values[-1]:.2f}" for values in seconds.values())
                log(f"{database}, round {number} of {rounds}: {results} s")
            drain(stack)
            System.PRIHOD.require_verified(stack)
        for (kind, connections), values in seconds.items():
            name = f"until {connections} at once are answered, {kind}, {database}"
            yield Measurement(MEASURE, name, "s", values, bound=at_most(SECONDS_MAX))
    yield Measurement(MEASURE, "not answered 200", "deliveries", [sum(refused)], bound=at_most(0))


def burst(stack: ProcfileStack, kind: str, connections: int) -> tuple[float, int]:
    """Return the seconds until the last answer, connecting included, and how many were not answered 200."""
    different = connections if kind == KINDS[0] else 1
    bodies = [each.body for each in random_webhooks(random.Random(), different)]
    started = time.perf_counter()
    answers = send_burst(stack.port, bodies * (connections // different))
    ok = sum(count for (status, _), count in answers.items() if status == 200)
    return time.perf_counter() - started, connections - ok
