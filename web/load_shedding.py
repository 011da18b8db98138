"""Load shedding: deliveries that waited too long for a thread are answered 503.

gunicorn's threads take requests from an unbounded queue. Under overload the queue grows, and with it the
latency of every request. Rejecting late deliveries before Django costs little, and the bank retries them.
"""

from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from core.http import service_unavailable
from ingest.metrics import DELIVERIES
from web.gunicorn_worker import queue_seconds

WAIT_SECONDS_MAX = 0.25  # in the queue
WEBHOOK_PREFIX = "/api/webhook/"  # banks retry by themselves; readers don't


def load_shedding(application: WSGIApplication) -> WSGIApplication:
    """Answer late deliveries 503 without storing anything; pass all other requests to `application`."""

    def wrapper(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if queue_seconds() <= WAIT_SECONDS_MAX or not environ["PATH_INFO"].startswith(WEBHOOK_PREFIX):
            return application(environ, start_response)
        response = service_unavailable("too busy, please send again")
        DELIVERIES.labels(response.status_code).inc()
        headers = [*response.items(), ("Content-Length", str(len(response.content)))]
        start_response(f"503 {response.reason_phrase}", headers)
        return [response.content]

    return wrapper
