"""Reads of a balance and a history over HTTP, against a view on the same server that answers a constant."""

from collections.abc import Callable, Iterator

from bench.database import worker_stack
from bench.generator import Group, fill_ledger, inn_of_organization
from bench.load import closed_loop
from bench.measurements import Measurement
from bench.resource_usage import cpu_seconds_by_part
from bench.rounds import WARM_UP_SECONDS
from bench.systems import InvalidRun
from tests.harness.procfile_stack import ProcfileStack

MEASURE = "reads"
LEDGER = Group(organizations=50, entries=200)
ORGANIZATION = f"/api/organizations/{inn_of_organization(1)}"
PATHS = {
    "a constant": "/healthz",
    "balance": f"{ORGANIZATION}/balance/",
    "history": f"{ORGANIZATION}/balance/history/",
}


def measure(quick: bool, log: Callable[[str], None]) -> Iterator[Measurement]:
    rounds, seconds = (1, 3) if quick else (4, 3)
    per_second: dict[str, list[float]] = {name: [] for name in PATHS}
    microseconds: dict[str, list[float]] = {name: [] for name in PATHS}
    with worker_stack() as stack:
        fill_ledger([LEDGER])
        stack.start("web")
        for path in PATHS.values():
            closed_loop(stack.port, WARM_UP_SECONDS, path)
        for number in range(1, rounds + 1):
            for name, path in PATHS.items():
                speed, cpu = load(stack, path, seconds)
                per_second[name].append(speed)
                microseconds[name].append(cpu)
            log(
                f"round {number} of {rounds}: "
                + ", ".join(f"{n} {v[-1]:.0f}/s" for n, v in per_second.items())
            )
    constant, *reads = PATHS
    for name in reads:
        title = f"requests/s of {name}, against {constant}"
        yield Measurement(MEASURE, title, "requests/s", per_second[name], per_second[constant])
    for name in PATHS:
        yield Measurement(MEASURE, f"CPU of web and database, {name}", "µs/request", microseconds[name])


def load(stack: ProcfileStack, path: str, seconds: int) -> tuple[float, float]:
    """Return the requests per second and the CPU time of web and database for each, in microseconds."""
    before = sum(cpu_seconds_by_part(stack).values())
    result = closed_loop(stack.port, seconds, path)
    if not result.ok:
        raise InvalidRun(f"{path} was not answered 200")
    return result.ok_per_second, 1e6 * (sum(cpu_seconds_by_part(stack).values()) - before) / result.ok
