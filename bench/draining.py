"""Drain a backlog with real worker processes."""

import time
from dataclasses import dataclass

from celery import Celery

from bench.resource_usage import cpu_seconds
from ingest.doorbell import APPLY_TASK
from ingest.models import Webhook
from tests.harness.procfile_stack import ProcfileStack
from tests.harness.wait import wait_until

DRAIN_SECONDS_MAX = 300.0


@dataclass(frozen=True)
class Drained:
    webhooks: int
    seconds: float
    database_cpu_seconds: float
    workers_cpu_seconds: float

    @property
    def per_second(self) -> float:
        return self.webhooks / self.seconds

    @property
    def database_share(self) -> float:
        """The database's share of the CPU time."""
        return self.database_cpu_seconds / (self.database_cpu_seconds + self.workers_cpu_seconds)


def ring(stack: ProcfileStack) -> None:
    """Send one message, as the doorbell does."""
    with Celery(broker=stack.broker.url, set_as_current=False) as app:
        app.send_task(APPLY_TASK, ignore_result=True)


def drain(stack: ProcfileStack) -> Drained:
    """Ring, and wait until the running workers have emptied the common queue."""
    webhooks = Webhook.objects.queued().count()
    workers = pool_processes(stack)
    before = cpu_seconds([stack.mariadb.pid]), cpu_seconds(workers)
    started = time.perf_counter()
    ring(stack)
    wait_until(is_drained, "the queue is empty", DRAIN_SECONDS_MAX)
    seconds = time.perf_counter() - started
    database, own = cpu_seconds([stack.mariadb.pid]) - before[0], cpu_seconds(workers) - before[1]
    return Drained(webhooks, seconds, database, own)


def is_drained() -> bool:
    return not Webhook.objects.queued().exists()


def pool_processes(stack: ProcfileStack) -> list[int]:
    """Return the pids of the running workers' pool processes, one for each worker."""
    return [pid for worker in stack.workers if worker.runs() for pid in worker.children()]
