"""How much a worker process grows while it drains a long backlog."""

from collections.abc import Callable, Iterator

from bench.consuming import memory_mib
from bench.database import house_of_workers, require_right_books
from bench.draining import drain, pool_processes
from bench.figures import Bound, Figure
from bench.generator import queue

QUICK, FULL = 20_000, 1_000_000  # webhooks
ORGANIZATIONS = 500
GROWTH_MIB_MAX = 64.0


def measure(quick: bool, say: Callable[[str], None]) -> Iterator[Figure]:
    """From when the real worker says that it is ready, to its highest."""
    with house_of_workers() as house:
        queue(QUICK if quick else FULL, organizations=ORGANIZATIONS)
        house.start("worker1")
        (process,) = pool_processes(house)
        at_start = memory_mib(process)["VmRSS"]
        drained = drain(house)
        growth = memory_mib(process)["VmHWM"] - at_start
        say(f"{drained.webhooks} webhooks in {drained.seconds:.0f} s, from {at_start:.0f} MiB on")
        require_right_books()
    what = f"growth of a worker that drains {drained.webhooks} webhooks"
    yield Figure("memory", what, "MiB", [growth], bound=Bound(GROWTH_MIB_MAX, at_least=False))
