"""Signs of life: a row that all machines can see, and a file for the health check on this one.

A worker's comes from the timer of its consumer. With the prefork pool that is the event loop itself: while it
hangs, or waits for the broker, nobody takes messages, and the worker is silent. With the solo pool it is a
thread, which goes on beating during a long task.
"""

import socket
import time
from datetime import timedelta
from typing import Any

import structlog
from celery import bootsteps
from celery.signals import worker_shutdown
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection

from worker import clock
from worker.marks import leave_mark, mark_of
from worker.models import Beat

log = structlog.get_logger(__name__)

EVERY_SECONDS = 10.0
SILENT_AFTER = timedelta(seconds=35)  # three beats, and some
FORGOTTEN_AFTER = timedelta(hours=1)


def beat(kind: Beat.Kind, name: str, processes: int) -> None:
    """Write the row. A database that fails is logged and forgiven: it is no reason to restart anybody."""
    try:
        now = clock.now()
        told = {"processes": processes, "seen_at": now}
        if not Beat.objects.filter(name=name).update(**told):
            Beat.objects.bulk_create([Beat(name=name, kind=kind, **told)], ignore_conflicts=True)
        Beat.objects.filter(seen_at__lt=now - FORGOTTEN_AFTER).delete()
    except (DatabaseError, InterfaceError) as fault:
        log.warning("beat is not written", name=name, error=repr(fault))


class WorkerBeats(bootsteps.StartStopStep):
    """Starts anew whenever the consumer has reached the broker; its timer is emptied when that is lost."""

    requires = ("celery.worker.consumer:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._entry: Any = None

    def start(self, consumer: Any) -> None:
        self._beat(consumer)
        self._entry = consumer.timer.call_repeatedly(EVERY_SECONDS, self._beat, (consumer,))

    def stop(self, consumer: Any) -> None:
        if self._entry is not None:
            consumer.timer.cancel(self._entry)
            self._entry = None

    def _beat(self, consumer: Any) -> None:
        leave_mark("worker")
        try:
            beat(Beat.Kind.WORKER, consumer.hostname, consumer.pool.num_processes)
        finally:
            connection.close()  # the pool processes forked from here on must not inherit it


@worker_shutdown.connect
def leave(sender: Any, **_: object) -> None:
    """Who ends in good order is not missed."""
    _take_away("worker", sender.hostname)


def _take_away(kind: str, name: str) -> None:
    mark_of(kind).unlink(missing_ok=True)
    try:
        Beat.objects.filter(name=name).delete()
    except (DatabaseError, InterfaceError) as fault:
        log.warning("beat is not taken away", name=name, error=repr(fault))
    finally:
        connection.close()


class SchedulerBeats:
    """The mark after each sweep that came to a good end, the row less often."""

    def __init__(self) -> None:
        self._name = f"beat-{settings.PORT}@{socket.gethostname()}"
        self._written_at = -EVERY_SECONDS

    def beat(self) -> None:
        leave_mark("beat")
        if time.monotonic() - self._written_at >= EVERY_SECONDS:
            self._written_at = time.monotonic()
            beat(Beat.Kind.SCHEDULER, self._name, 1)

    def leave(self) -> None:
        """A new container has a new name: the old one's would be missed until it is forgotten."""
        _take_away("beat", self._name)
