"""A backlog, and real worker processes that take it away."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import sysconf
from pathlib import Path

from celery import Celery

from faults.house import House, wait_until
from ingest.doorbell import TASK
from ingest.models import Webhook

DRAIN_SECONDS_MAX = 300.0
_TICKS_PER_SECOND = sysconf("SC_CLK_TCK")


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


def cpu_seconds(pids: Sequence[int]) -> float:
    """What these processes have used since their start: fields 14 and 15 of proc(5)'s stat."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(each[11]) + int(each[12]) for each in fields) / _TICKS_PER_SECOND


def memory_mib(pid: int) -> Mapping[str, float]:
    """VmRSS, VmHWM (its highest so far) and the like of proc(5)'s status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    pairs = (line.split(":") for line in lines if line.endswith(" kB"))
    return {name: int(value.split()[0]) / 1024 for name, value in pairs}
