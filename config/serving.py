"""Shedding: a delivery that waited too long for a thread is asked to come again.

gunicorn's threads take requests from a queue without a bound. When more comes than the machine can do, the
queue grows, and with it each answer's time. So the door answers 503 to what waited too long, before Django.
"""

import threading
import time
from collections.abc import Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from gunicorn.workers.gthread import TConn, ThreadWorker

from ledger.answers import unavailable

WAIT_SECONDS_MAX = 0.25  # for a thread
DOOR = "/api/webhook/bank/"  # the bank sends again by itself; a reader doesn't

_request = threading.local()


class Worker(ThreadWorker):  # type: ignore[misc]  # untyped
    """gunicorn's gthread, which knows how long the request at hand has waited for its thread."""

    def enqueue_req(self, conn: TConn) -> None:
        conn.ready_at = time.monotonic()
        super().enqueue_req(conn)

    def handle(self, conn: TConn) -> Any:
        _request.waited_seconds = time.monotonic() - conn.ready_at
        return super().handle(conn)


def shedding(application: WSGIApplication) -> WSGIApplication:
    """`application`, except that late deliveries are answered 503, and nothing of them is stored."""

    def door(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        waited_seconds = getattr(_request, "waited_seconds", 0.0)
        if waited_seconds <= WAIT_SECONDS_MAX or environ["PATH_INFO"] != DOOR:
            return application(environ, start_response)
        answer = unavailable("too busy, please send again")
        headers = [*answer.items(), ("Content-Length", str(len(answer.content)))]
        start_response(f"503 {answer.reason_phrase}", headers)
        return [answer.content]

    return door
