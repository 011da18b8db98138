"""A backlog, and real worker processes that take it away."""

import time
from dataclasses import dataclass

from celery import Celery

from bench.consuming import cpu_seconds
from faults.house import House, wait_until
from ingest.doorbell import TASK
from ingest.models import Webhook

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
        """Of the CPU time."""
        return self.database_cpu_seconds / (self.database_cpu_seconds + self.workers_cpu_seconds)


def ring(house: House) -> None:
    """One message, as the doorbell sends it."""
    with Celery(broker=house.broker.url, set_as_current=False) as app:
        app.send_task(TASK, ignore_result=True)


def drain(house: House) -> Drained:
    """Ring, and wait until the running workers have emptied the common queue."""
    webhooks = Webhook.objects.queued().count()
    workers = pool_processes(house)
    before = cpu_seconds([house.mariadb.pid]), cpu_seconds(workers)
    begun = time.perf_counter()
    ring(house)
    wait_until(is_drained, "the queue is empty", DRAIN_SECONDS_MAX)
    seconds = time.perf_counter() - begun
    database, own = cpu_seconds([house.mariadb.pid]) - before[0], cpu_seconds(workers) - before[1]
    return Drained(webhooks, seconds, database, own)


def is_drained() -> bool:
    return not Webhook.objects.queued().exists()


def pool_processes(house: House) -> list[int]:
    """Those that apply, one for each of the running workers."""
    return [pid for worker in house.workers if worker.runs() for pid in worker.children()]
