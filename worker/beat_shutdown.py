"""End Celery beat on SIGTERM and SIGINT outside the signal handler.

Celery's own handler closes the scheduler, and thereby takes locks and writes to the database, while the code
that it interrupted may hold the same locks. A second signal during this, such as the kernel's one for each
thread of a killed supervisor, blocked beat for ever; an error in the handler was logged as a task's, and beat
continued.
"""

import signal
from types import FrameType

from celery.apps import beat
from celery.beat import Service


class Beat(beat.Beat):
    def install_sync_handler(self, service: Service) -> None:
        def stop(_number: int, _frame: FrameType | None) -> None:
            _ignore_further_signals()
            # Ends the loop even if the interrupted code suppresses the exception. Service.stop() also logs,
            # which fails while a log line is being written.
            service._is_shutdown.set()  # type: ignore[attr-defined]  # noqa: SLF001
            raise SystemExit

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)


def _ignore_further_signals() -> None:
    """Leave the shutdown uninterrupted: it is under way, and SIGKILL remains."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
