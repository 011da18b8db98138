"""Celery beat without a broker: scheduled tasks run in beat's own process.

A sweep sent through the broker would be lost with it, and beat would wait for a broker that hangs; but the
sweep must continue when the broker is down.
"""

import time
from datetime import UTC, datetime
from typing import Any

import structlog
from celery import beat
from django.db import DatabaseError, InterfaceError, close_old_connections
from structlog.contextvars import bind_contextvars, clear_contextvars

from core.db import transactions
from worker.heartbeats import SchedulerHeartbeat

log = structlog.get_logger(__name__)

SWEEP = "worker.tasks.sweep"


class MonotonicEntry(beat.ScheduleEntry):
    """Uses the monotonic clock: after the wall clock is set back, Celery's own entry waits as long."""

    schedule: Any

    def default_now(self) -> datetime:
        return datetime.fromtimestamp(time.monotonic(), UTC)

    def is_due(self) -> tuple[bool, float]:
        """Return whether the entry is due, and the seconds until it is due next."""
        interval = self.schedule.run_every
        left = (self.last_run_at + interval - self.default_now()).total_seconds()
        return (False, left) if left > 0 else (True, interval.total_seconds())


class InProcessScheduler(beat.Scheduler):
    """Keeps last run times in memory only: none needs to survive a restart."""

    Entry = MonotonicEntry
    producer: Any = None  # Celery's own would first connect to the broker, and wait
    heartbeat = SchedulerHeartbeat()

    def apply_async(self, entry: beat.ScheduleEntry, *_: Any, **__: Any) -> None:
        """Run the task to its end. The entry is due again next time, also if it fails.

        A transient error, as during an outage of the database, is one line; Celery logs any other with its
        traceback. Only a successful sweep records a heartbeat: a scheduler whose sweeps fail is as bad as
        none.
        """
        close_old_connections()
        clear_contextvars()
        bind_contextvars(task=entry.task)
        try:
            self.app.tasks[str(entry.task)]()  # none of ours takes arguments
        except (DatabaseError, InterfaceError) as exc:
            if not transactions.is_transient(exc):
                raise
            log.warning("scheduled task failed", error=repr(exc))
            return
        if entry.task == SWEEP:
            self.heartbeat.record()

    def close(self) -> None:
        """Deregister. Celery calls this when its loop has ended."""
        super().close()
        self.heartbeat.deregister()
