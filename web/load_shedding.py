"""Shedding: a delivery that waited too long for a thread is asked to come again.

gunicorn's threads take requests from a queue without a bound. When more comes than the machine can do, the
queue grows, and with it each answer's time. So the door answers 503 to what waited too long, before Django.
"""

from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from core.http import service_unavailable
from ingest.metrics import DELIVERIES
from web.gunicorn_worker import queue_seconds

WAIT_SECONDS_MAX = 0.25  # for a thread
WEBHOOK_PREFIX = "/api/webhook/"  # a bank sends again by itself; a reader doesn't


def load_shedding(application: WSGIApplication) -> WSGIApplication:
    """`application`, except that late deliveries are answered 503, and nothing of them is stored."""

    def endpoint(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if queue_seconds() <= WAIT_SECONDS_MAX or not environ["PATH_INFO"].startswith(WEBHOOK_PREFIX):
            return application(environ, start_response)
        answer = service_unavailable("too busy, please send again")
        DELIVERIES.labels(answer.status_code).inc()
        headers = [*answer.items(), ("Content-Length", str(len(answer.content)))]
        start_response(f"503 {answer.reason_phrase}", headers)
        return [answer.content]

    return endpoint
