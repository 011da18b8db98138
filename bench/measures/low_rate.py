"""Latency of a delivery at 1 and at 20 a second; `--against REVISION` measures an older one in turns."""

# All processes run. Each system has one kept-alive connection, and deliveries go to one and the other in
# turns: at 20 a second one 25 ms after the other.

import http.client
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from statistics import quantiles

from bench.load import PATH, random_webhooks
from bench.measurements import Measurement, at_most
from bench.systems import DATABASE_SETTINGS, InvalidRun, System
from tests.harness.procfile_stack import SHORT_TIMES, ProcfileStack
from tests.harness.servers import ROOT

MEASURE = "low_rate"
PERCENTILES = (50, 99)
RATIO_MAX = 1.1
Samples = Mapping[str, list[float]]  # milliseconds, by system


def measure(quick: bool, log: Callable[[str], None], against: str = "") -> Iterator[Measurement]:
    rounds, seconds = (1, {1: 3, 20: 2}) if quick else (4 if against else 2, {1: 25, 20: 15})
    with ExitStack() as resources:
        stacks = {"prihod": resources.enter_context(System.PRIHOD.stack())}
        if against:
            stacks[against] = resources.enter_context(stack_of(against))
        deliver_in_turns(stacks, per_second=20, seconds=1)  # warms up
        for rate in seconds:
            results = []
            for number in range(1, rounds + 1):
                results.append(deliver_in_turns(stacks, per_second=rate, seconds=seconds[rate]))
                medians = ", ".join(
                    f"{name} {percentile(each, 50):.1f} ms" for name, each in results[-1].items()
                )
                log(f"{rate} a second, round {number} of {rounds}: {medians}")
            yield from compare(results, rate, against)
        System.PRIHOD.require_verified(stacks["prihod"])


@contextmanager
def stack_of(revision: str) -> Iterator[ProcfileStack]:
    """Check `revision` out, and start its web, worker and beat as System.PRIHOD.stack does."""
    with tempfile.TemporaryDirectory(prefix="prihod-revision-") as folder:
        root = Path(folder) / "clone"
        subprocess.run(
            ["git", "clone", "--quiet", "--shared", "--no-checkout", str(ROOT), str(root)], check=True
        )
        subprocess.run(["git", "-C", str(root), "checkout", "--quiet", revision], check=True)
        own_times = dict.fromkeys(SHORT_TIMES, "")
        with ProcfileStack(
            workers=1, root=root, database_settings=DATABASE_SETTINGS, environment=own_times
        ) as stack:
            yield stack


def deliver_in_turns(stacks: Mapping[str, ProcfileStack], *, per_second: int, seconds: int) -> Samples:
    """Raise InvalidRun if a delivery is not answered 200."""
    samples: dict[str, list[float]] = {name: [] for name in stacks}
    turns = per_second * len(stacks)
    with ExitStack() as resources:
        connections = {
            name: resources.enter_context(closing(http.client.HTTPConnection("127.0.0.1", stack.port)))
            for name, stack in stacks.items()
        }
        started = time.monotonic()
        for number, webhook in enumerate(random_webhooks(random.Random(), turns * seconds)):
            time.sleep(max(0.0, started + number / turns - time.monotonic()))
            name = [*stacks][number % len(stacks)]
            samples[name].append(deliver(connections[name], webhook.body))
    return samples


def deliver(connection: http.client.HTTPConnection, body: bytes) -> float:
    started = time.perf_counter()
    connection.request("POST", PATH, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    response.read()
    if response.status != 200:
        raise InvalidRun(f"a delivery was answered {response.status}")
    return 1000 * (time.perf_counter() - started)


def percentile(values: list[float], percent: int) -> float:
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def compare(results: list[Samples], rate: int, against: str) -> Iterator[Measurement]:
    for percent in PERCENTILES:
        by_system = {name: [percentile(each[name], percent) for each in results] for name in results[0]}
        name = f"p{percent} at {rate} a second" + (f", against {against}" if against else "")
        bound = at_most(RATIO_MAX) if against else None
        yield Measurement(MEASURE, name, "ms", by_system["prihod"], by_system.get(against, ()), bound)
