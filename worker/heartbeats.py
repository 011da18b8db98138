"""Record heartbeats: a row that all machines can see, and a file for the health check of this machine.

A worker's heartbeat comes from the timer of its consumer. With the prefork pool that is the event loop
itself: while the loop hangs or waits for the broker, no message is taken and the heartbeat goes stale. With
the solo pool the timer is a thread, so heartbeats continue during a long task.
"""

import socket
import tempfile
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
from celery import bootsteps
from celery.signals import worker_shutdown
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection

from core.db import clock
from worker.models import Heartbeat

log = structlog.get_logger(__name__)

INTERVAL_SECONDS = 10.0
STALE_AFTER = timedelta(seconds=35)  # three heartbeats and a margin
EXPIRED_AFTER = timedelta(hours=1)


def heartbeat_path(kind: str) -> Path:
    """Return the file whose age is that of the last heartbeat.

    The port in its name distinguishes deployments on one machine.
    """
    return Path(tempfile.gettempdir(), f"prihod-{kind}-{settings.PORT}")


def touch_heartbeat(kind: str) -> None:
    with suppress(OSError):  # a full disk must not stop the work; the health check reports it
        heartbeat_path(kind).touch()


def record_heartbeat(kind: Heartbeat.Kind, name: str, processes: int) -> None:
    """Write the row, and delete expired ones.

    Database errors are logged and ignored, so an outage does not restart healthy processes.
    """
    try:
        now = clock.database_now()
        fields = {"processes": processes, "seen_at": now}
        if not Heartbeat.objects.filter(name=name).update(**fields):
            Heartbeat.objects.bulk_create([Heartbeat(name=name, kind=kind, **fields)], ignore_conflicts=True)
        Heartbeat.objects.filter(seen_at__lt=now - EXPIRED_AFTER).delete()
    except (DatabaseError, InterfaceError) as exc:
        log.warning("heartbeat write failed", name=name, error=repr(exc))


class HeartbeatStep(bootsteps.StartStopStep):
    """Starts whenever the consumer has connected to the broker; Celery clears its timer on disconnection."""

    requires = ("celery.worker.consumer:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._timer_entry: Any = None

    def start(self, consumer: Any) -> None:
        self._record(consumer)
        self._timer_entry = consumer.timer.call_repeatedly(INTERVAL_SECONDS, self._record, (consumer,))

    def stop(self, consumer: Any) -> None:
        if self._timer_entry is not None:
            consumer.timer.cancel(self._timer_entry)
            self._timer_entry = None

    def _record(self, consumer: Any) -> None:
        touch_heartbeat("worker")
        try:
            record_heartbeat(Heartbeat.Kind.WORKER, consumer.hostname, consumer.pool.num_processes)
        finally:
            connection.close()  # pool processes forked from now on must not inherit it


@worker_shutdown.connect
def deregister(sender: Any, **_: object) -> None:
    """Remove the heartbeat on a clean shutdown, so that no alert is raised."""
    _remove("worker", sender.hostname)


def _remove(kind: str, name: str) -> None:
    heartbeat_path(kind).unlink(missing_ok=True)
    try:
        Heartbeat.objects.filter(name=name).delete()
    except (DatabaseError, InterfaceError) as exc:
        log.warning("heartbeat removal failed", name=name, error=repr(exc))
    finally:
        connection.close()


class SchedulerHeartbeat:
    """Touches the file after each successful sweep, and writes the row every INTERVAL_SECONDS."""

    def __init__(self) -> None:
        self._name = f"scheduler-{settings.PORT}@{socket.gethostname()}"
        self._written_at = -INTERVAL_SECONDS

    def record(self) -> None:
        touch_heartbeat("scheduler")
        if time.monotonic() - self._written_at >= INTERVAL_SECONDS:
            self._written_at = time.monotonic()
            record_heartbeat(Heartbeat.Kind.SCHEDULER, self._name, 1)

    def deregister(self) -> None:
        """Remove the heartbeat: a new container has a new name, and the old one's would go stale."""
        _remove("scheduler", self._name)
