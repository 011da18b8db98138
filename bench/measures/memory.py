"""Memory growth of a worker process while it drains a long backlog."""

from collections.abc import Callable, Iterator

from bench.database import require_consistent_ledger, worker_stack
from bench.draining import drain, pool_processes
from bench.generator import enqueue
from bench.measurements import Measurement, at_most
from bench.resource_usage import memory_mib

MEASURE = "memory"
QUICK, FULL = 20_000, 500_000  # webhooks
ORGANIZATIONS = 500
GROWTH_MIB_MAX = 64.0


def measure(quick: bool, log: Callable[[str], None]) -> Iterator[Measurement]:
    """Yield the growth from the memory of a worker that is ready to its peak."""
    with worker_stack() as stack:
        enqueue(QUICK if quick else FULL, organizations=ORGANIZATIONS)
        stack.start("worker1")
        (process,) = pool_processes(stack)
        at_start = memory_mib(process)["VmRSS"]
        drained = drain(stack)
        growth = memory_mib(process)["VmHWM"] - at_start
        log(f"{drained.webhooks} webhooks in {drained.seconds:.0f} s, from {at_start:.0f} MiB on")
        require_consistent_ledger()
    name = f"growth of a worker that drains {drained.webhooks} webhooks"
    yield Measurement(MEASURE, name, "MiB", [growth], bound=at_most(GROWTH_MIB_MAX))
