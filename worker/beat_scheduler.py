"""Beat without a broker: what is due runs in beat's own process.

A sweep that had to be sent through the broker would be lost with it, and beat itself would wait for a
broker that hangs; but the sweep is what must go on when the broker doesn't.
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
    """Goes by the monotonic clock: when the wall clock is set back, Celery's own waits for as long."""

    schedule: Any

    def default_now(self) -> datetime:
        return datetime.fromtimestamp(time.monotonic(), UTC)

    def is_due(self) -> tuple[bool, float]:
        """Whether it is, and the seconds until it is again. Ours are all due at fixed distances."""
        distance = self.schedule.run_every
        left = (self.last_run_at + distance - self.default_now()).total_seconds()
        return (False, left) if left > 0 else (True, distance.total_seconds())


class InProcessScheduler(beat.Scheduler):
    """Keeps its times in memory: nothing here needs to survive a restart."""

    Entry = MonotonicEntry
    producer: Any = None  # Celery's own would connect first, and wait for that
    beats = SchedulerHeartbeat()

    def apply_async(self, entry: beat.ScheduleEntry, *_: Any, **__: Any) -> None:
        """Run it to its end. What it raises is logged by Celery, and the entry is due again next time.

        Only a sweep that succeeds is a heartbeat: a scheduler whose sweeps fail is as good as none.
        """
        close_old_connections()
        clear_contextvars()
        bind_contextvars(task=entry.task)
        self.app.tasks[str(entry.task)]()  # none of ours takes arguments
        if entry.task == SWEEP:
            self.beats.beat()

    def close(self) -> None:
        """Celery calls it on SIGTERM, wherever that finds this process, and again when its loop has ended."""
        super().close()
        self.beats.leave()
