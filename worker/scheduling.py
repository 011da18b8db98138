"""Beat without a broker: what is due runs in beat's own process.

A sweep that had to be sent through the broker would be lost with it, and beat itself would wait for a
broker that hangs; but the sweep is what must go on when the broker doesn't.
"""

import tempfile
from pathlib import Path
from typing import Any

from celery import beat
from django.db import close_old_connections

HEARTBEAT = Path(tempfile.gettempdir(), "prihod-beat")  # as old as the last good end; for health checks


class Scheduler(beat.Scheduler):
    """Keeps its times in memory: nothing here needs to survive a restart."""

    producer: Any = None  # Celery's own would connect first, and wait for that

    def apply_async(self, entry: beat.ScheduleEntry, *_: Any, **__: Any) -> None:
        """Run it to its end. What it raises is logged by Celery, and the entry is due again next time."""
        close_old_connections()
        self.app.tasks[str(entry.task)]()  # none of ours takes arguments
        HEARTBEAT.touch()
