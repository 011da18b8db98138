"""gunicorn's threads, with a clock at the queue before them.

gunicorn loads this in its main process, whose modules a reload keeps as they are: so
it imports nothing of ours.
"""

import threading
import time
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

_request = threading.local()


class Worker(ThreadWorker):  # type: ignore[misc]  # untyped
    """gunicorn's gthread, which knows how long the request at hand has waited for its thread."""

    def enqueue_req(self, conn: TConn) -> None:
        conn.ready_at = time.monotonic()
        super().enqueue_req(conn)

    def handle(self, conn: TConn) -> Any:
        _request.waited_seconds = time.monotonic() - conn.ready_at
        return super().handle(conn)


def waited_seconds() -> float:
    """How long the request of this thread has waited for it; 0 under any other server."""
    seconds: float = getattr(_request, "waited_seconds", 0.0)
    return seconds
