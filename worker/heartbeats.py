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

from core.db import clock
from worker.marks import heartbeat_path, touch_heartbeat
from worker.models import Heartbeat

log = structlog.get_logger(__name__)

INTERVAL_SECONDS = 10.0
STALE_AFTER = timedelta(seconds=35)  # three beats, and some
EXPIRED_AFTER = timedelta(hours=1)


def record_heartbeat(kind: Heartbeat.Kind, name: str, processes: int) -> None:
    """Write the row. A database that fails is logged and forgiven: it is no reason to restart anybody."""
    try:
        now = clock.database_now()
        told = {"processes": processes, "seen_at": now}
        if not Heartbeat.objects.filter(name=name).update(**told):
            Heartbeat.objects.bulk_create([Heartbeat(name=name, kind=kind, **told)], ignore_conflicts=True)
        Heartbeat.objects.filter(seen_at__lt=now - EXPIRED_AFTER).delete()
    except (DatabaseError, InterfaceError) as fault:
        log.warning("heartbeat write failed", name=name, error=repr(fault))


class HeartbeatStep(bootsteps.StartStopStep):
    """Starts anew whenever the consumer has reached the broker; its timer is emptied when that is lost."""

    requires = ("celery.worker.consumer:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._entry: Any = None

    def start(self, consumer: Any) -> None:
        self._beat(consumer)
        self._entry = consumer.timer.call_repeatedly(INTERVAL_SECONDS, self._beat, (consumer,))

    def stop(self, consumer: Any) -> None:
        if self._entry is not None:
            consumer.timer.cancel(self._entry)
            self._entry = None

    def _beat(self, consumer: Any) -> None:
        touch_heartbeat("worker")
        try:
            record_heartbeat(Heartbeat.Kind.WORKER, consumer.hostname, consumer.pool.num_processes)
        finally:
            connection.close()  # the pool processes forked from here on must not inherit it


@worker_shutdown.connect
def deregister(sender: Any, **_: object) -> None:
    """Who ends in good order is not missed."""
    _remove("worker", sender.hostname)


def _remove(kind: str, name: str) -> None:
    heartbeat_path(kind).unlink(missing_ok=True)
    try:
        Heartbeat.objects.filter(name=name).delete()
    except (DatabaseError, InterfaceError) as fault:
        log.warning("heartbeat removal failed", name=name, error=repr(fault))
    finally:
        connection.close()


class SchedulerHeartbeat:
    """The mark after each sweep that came to a good end, the row less often."""

    def __init__(self) -> None:
        self._name = f"beat-{settings.PORT}@{socket.gethostname()}"
        self._written_at = -INTERVAL_SECONDS

    def beat(self) -> None:
        touch_heartbeat("beat")
        if time.monotonic() - self._written_at >= INTERVAL_SECONDS:
            self._written_at = time.monotonic()
            record_heartbeat(Heartbeat.Kind.SCHEDULER, self._name, 1)

    def leave(self) -> None:
        """A new container has a new name: the old one's would be missed until it is forgotten."""
        _remove("beat", self._name)
