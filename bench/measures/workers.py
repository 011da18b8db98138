"""Throughput of several worker processes on one organization and on many; the wait of a quiet one."""

# Each worker is the Procfile's own command with one process, so that N workers are N processes. The CPU
# seconds of the database's process and of the workers' (proc(5)) show where the time goes.

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from django.conf import settings

from bench.database import require_consistent_ledger, worker_stack
from bench.draining import drain, is_drained, ring
from bench.generator import enqueue
from bench.measurements import Measurement, at_most
from ingest.models import Webhook
from tests.harness.procfile_stack import ProcfileStack

MEASURE = "workers"
PROCESSES, ORGANIZATIONS = (1, 2, 4), (1, 10, 500)
QUIET = 1_000  # the number of an organization without a backlog
QUIET_EVERY_SECONDS = 0.3
BATCHES_WAITED_MAX = 5.0
POLL_SECONDS = 0.005


@dataclass(frozen=True)
class Size:
    rounds: int
    webhooks: int  # a round
    hot_backlog: int  # webhooks


QUICK, FULL = Size(1, 5_000, 5_000), Size(2, 10_000, 20_000)


def measure(quick: bool, log: Callable[[str], None]) -> Iterator[Measurement]:
    size = QUICK if quick else FULL
    deadlocks = 0
    for processes in PROCESSES:
        with worker_stack(processes) as stack:  # each starts with a small ledger, which is verified sooner
            stack.sql("SET GLOBAL innodb_print_all_deadlocks = ON")
            start(stack)
            for organizations in ORGANIZATIONS:
                yield from throughput(stack, size, processes, organizations, log)
            yield longest_wait(stack, size, processes, log)
            yield batches_before(stack, size, processes, log)
            deadlocks += count_deadlocks(stack)
    yield Measurement(MEASURE, "deadlocks in any log", "deadlocks", [deadlocks], bound=at_most(0))


def start(stack: ProcfileStack) -> None:
    stack.start(*(worker.name for worker in stack.workers))
    enqueue(len(stack.workers) * settings.BATCH_SIZE_MAX, organizations=max(ORGANIZATIONS))
    enqueue(1, organizations=1, first=QUIET)
    drain(stack)  # creates the organizations, and warms up


def throughput(
    stack: ProcfileStack, size: Size, processes: int, organizations: int, log: Callable[[str], None]
) -> Iterator[Measurement]:
    rounds = []
    for number in range(1, size.rounds + 1):
        enqueue(size.webhooks, organizations=organizations)
        rounds.append(drained := drain(stack))
        require_consistent_ledger()
        log(
            f"{processes} processes, {organizations} organizations, round {number} of {size.rounds}: "
            f"{drained.per_second:.0f}/s, CPU seconds: database {drained.database_cpu_seconds:.1f}, "
            f"workers {drained.workers_cpu_seconds:.1f} of {drained.seconds:.1f} s"
        )
    name = f"{processes} processes, {organizations} organizations"
    yield Measurement(MEASURE, name, "webhooks/s", [drained.per_second for drained in rounds])
    shares = [drained.database_share for drained in rounds]
    yield Measurement(MEASURE, f"database's share of the CPU time, {name}", "of 1", shares)


def longest_wait(stack: ProcfileStack, size: Size, processes: int, log: Callable[[str], None]) -> Measurement:
    """Drain a hot organization's backlog while webhooks of a quiet one arrive; return their longest wait."""
    enqueue(size.webhooks, organizations=1)
    batch_seconds = settings.BATCH_SIZE_MAX / drain(stack).per_second
    enqueue(size.hot_backlog, organizations=1)
    waits = []
    ring(stack)
    while not is_drained():
        waits.append(wait_of_one(stack))
        time.sleep(QUIET_EVERY_SECONDS)
    require_consistent_ledger()
    log(
        f"{processes} processes, a hot backlog of {size.hot_backlog}: {len(waits)} webhooks of a quiet "
        f"organization waited up to {max(waits):.2f} s; a batch takes {batch_seconds:.3f} s"
    )
    name = f"longest wait of a quiet organization behind a hot one, {processes} processes"
    return Measurement(
        MEASURE, name, "batches", [max(waits) / batch_seconds], bound=at_most(BATCHES_WAITED_MAX)
    )


def batches_before(
    stack: ProcfileStack, size: Size, processes: int, log: Callable[[str], None]
) -> Measurement:
    """Drain a hot backlog around one webhook of a quiet organization; return the batches before it."""
    half = size.hot_backlog // 2
    enqueue(half, organizations=1)
    oldest = Webhook.objects.queued()[0]
    enqueue(1, organizations=1, first=QUIET)
    quiet = Webhook.objects.latest("id")
    enqueue(half, organizations=1)
    drain(stack)
    require_consistent_ledger()
    quiet.refresh_from_db()
    before = Webhook.objects.filter(pk__gte=oldest.pk, applied_at__lt=quiet.applied_at).count()
    batches = before / settings.BATCH_SIZE_MAX
    log(f"{processes} processes: {batches:.0f} batches before a webhook with {half} in front of it")
    name = (
        f"batches before a quiet organization's webhook in the middle of a hot backlog, {processes} processes"
    )
    return Measurement(MEASURE, name, "batches", [batches], bound=at_most(BATCHES_WAITED_MAX))


def wait_of_one(stack: ProcfileStack) -> float:
    """Return the seconds from the commit of a quiet organization's webhook until it is applied."""
    enqueue(1, organizations=1, first=QUIET)
    webhook = Webhook.objects.latest("id")
    started = time.perf_counter()
    ring(stack)
    while Webhook.objects.received().filter(pk=webhook.pk).exists():
        time.sleep(POLL_SECONDS)
    return time.perf_counter() - started


def count_deadlocks(stack: ProcfileStack) -> int:
    """Return the deadlocks in the server's log, which records each of them, and in the workers' logs."""
    logs = [stack.mariadb.log, *(worker.log for worker in stack.workers)]
    texts = [log.read_text(errors="replace") for log in logs]
    return sum(text.count("WE ROLL BACK TRANSACTION") + text.count("(1213") for text in texts)
