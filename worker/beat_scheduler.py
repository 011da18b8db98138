"""Celery beat without a broker: scheduled tasks run in beat's own process.

A sweep sent through the broker would be lost with it, and beat would wait for a broker that hangs; but the
sweep must continue when the broker is down.
"""

import time
from datetime import UTC, datetime
from typing import Any

from celery import beat
from django.db import close_old_connections
from structlog.contextvars import bind_contextvars, clear_contextvars

from worker.heartbeats import SchedulerHeartbeat

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
        """Run the task to its end. Celery logs what it raises, and the entry is due again next time.

        Only a successful sweep records a heartbeat: a scheduler whose sweeps fail is as bad as none.
        """
        close_old_connections()
        clear_contextvars()
        bind_contextvars(task=entry.task)
        self.app.tasks[str(entry.task)]()  # none of ours takes arguments
        if entry.task == SWEEP:
            self.heartbeat.record()

    def close(self) -> None:
        """Deregister. Celery calls this when its loop has ended."""
        super().close()
        self.heartbeat.deregister()
