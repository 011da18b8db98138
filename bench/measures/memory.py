"""How much a worker process grows while it drains a long backlog."""

from collections.abc import Callable, Iterator

from bench.database import require_consistent_ledger, worker_stack
from bench.draining import drain, pool_processes
from bench.generator import enqueue
from bench.measurements import Bound, Measurement
from bench.resource_usage import memory_mib

QUICK, FULL = 20_000, 1_000_000  # webhooks
ORGANIZATIONS = 500
GROWTH_MIB_MAX = 64.0


def measure(quick: bool, say: Callable[[str], None]) -> Iterator[Measurement]:
    """From when the real worker says that it is ready, to its highest."""
    with worker_stack() as stack:
        enqueue(QUICK if quick else FULL, organizations=ORGANIZATIONS)
        stack.start("worker1")
        (process,) = pool_processes(stack)
        at_start = memory_mib(process)["VmRSS"]
        drained = drain(stack)
        growth = memory_mib(process)["VmHWM"] - at_start
        say(f"{drained.webhooks} webhooks in {drained.seconds:.0f} s, from {at_start:.0f} MiB on")
        require_consistent_ledger()
    what = f"growth of a worker that drains {drained.webhooks} webhooks"
    yield Measurement("memory", what, "MiB", [growth], bound=Bound(GROWTH_MIB_MAX, at_least=False))
