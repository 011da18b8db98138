"""/metrics for Prometheus: what the processes have counted, and some figures of the dashboard.

Counts of this program's processes come from METRICS_DIR. Processes that don't share it with web, on another
machine or in another container, answer on METRICS_PORT for themselves, without the database's figures.
"""

import secrets
import sys
import threading
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from socket import AF_INET, AF_INET6
from socketserver import ThreadingMixIn
from threading import BoundedSemaphore
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIEnvironment

import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError
from django.http import HttpRequest, HttpResponse
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from core.db import clock
from core.http import error_response, json_view
from monitoring.stats import Stats
from worker.models import Heartbeat

log = structlog.get_logger(__name__)

CONNECTION_TIMEOUT_SECONDS = 5.0  # without a byte
CONNECTIONS_MAX = 32  # at once; Prometheus needs one


def process_metrics() -> bytes:
    """In Prometheus' format, what the processes that share METRICS_DIR have counted, or else this one."""
    if not settings.METRICS_DIR:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    registry.register(_SharedCounts(settings.METRICS_DIR))
    return generate_latest(registry)


class _SharedCounts(Collector):
    """The library's own collector fails on the file of a process that is just beginning: it is empty."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        merge: Any = MultiProcessCollector.merge  # untyped
        files = [str(file) for file in self._folder.glob("*.db") if file.stat().st_size]
        metrics: Iterable[Metric] = merge(files, accumulate=True)
        return metrics


class _DatabaseFigures(Collector):
    """The figures as gauges, read from the database while Prometheus waits."""

    def collect(self) -> Iterator[Metric]:
        told = Stats(clock.database_now())
        waiting = told.oldest_pending_seconds or 0.0
        yield _gauge("prihod_webhooks_pending", "Webhooks received and not yet applied", told.backlog.number)
        yield _gauge("prihod_oldest_pending_age_seconds", "Age of the oldest of them, 0 without any", waiting)
        yield _gauge("prihod_webhooks_failed", "Failed webhooks that wait for a person", told.failed.number)
        yield _gauge(
            "prihod_unrecognized_deliveries_open",
            "Unrecognized deliveries that wait for a person",
            told.unrecognized.number,
        )
        alive = [sign.beat for sign in told.signs if not sign.is_stale]
        workers = [beat for beat in alive if beat.kind == Heartbeat.Kind.WORKER]
        yield _gauge("prihod_workers_up", "Workers that were heard of lately", len(workers))
        yield _gauge("prihod_worker_processes_up", "Their processes", sum(beat.processes for beat in workers))
        yield _gauge("prihod_schedulers_up", "Schedulers likewise", len(alive) - len(workers))
        if last := told.verification:
            yield _gauge(
                "prihod_ledger_drift", "1 if the last verification found drift", int(bool(last.drift))
            )
        if told.verified_at:
            meant = "End of the last verification, without one the first payment, in Unix time"
            yield _gauge("prihod_ledger_verified_timestamp_seconds", meant, told.verified_at.timestamp())


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(name, what, value)


def database_metrics() -> bytes:
    """The same for the database's figures; prihod_database_up is 0, and alone, when it doesn't answer."""
    registry = CollectorRegistry()
    try:
        registry.register(_DatabaseFigures())
        told, up = generate_latest(registry), 1
    except (DatabaseError, InterfaceError) as fault:
        log.warning("database metrics unavailable", error=repr(fault))
        told, up = b"", 0
    return told + (
        b"# HELP prihod_database_up 1 if the database answered this request\n"
        b"# TYPE prihod_database_up gauge\n"
        b"prihod_database_up %d\n" % up
    )


def is_authorized(authorization: str) -> bool:
    """By the header Authorization: Bearer METRICS_TOKEN. Without a token, all in development, else nobody."""
    if not settings.METRICS_TOKEN:
        return bool(settings.DEBUG)
    return secrets.compare_digest(authorization.encode(), f"Bearer {settings.METRICS_TOKEN}".encode())


@json_view("GET", "HEAD")
def metrics(request: HttpRequest) -> HttpResponse:
    """404 as long as nobody may see them, so that nobody learns of them."""
    if is_authorized(request.headers.get("Authorization", "")):
        return HttpResponse(process_metrics() + database_metrics(), content_type=CONTENT_TYPE_LATEST)
    if settings.METRICS_TOKEN:
        return error_response(401, "a bearer token is required", WWW_Authenticate="Bearer")
    return error_response(404, "Not found")


class _Handler(WSGIRequestHandler):
    timeout = CONNECTION_TIMEOUT_SECONDS

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 as the base class has it
        pass


class _Listener(ThreadingMixIn, WSGIServer):
    """A thread for each connection, and a bound on them: a silent client holds up no other."""

    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        self.address_family = AF_INET6 if ":" in host else AF_INET
        self._free = BoundedSemaphore(CONNECTIONS_MAX)
        super().__init__((host, port), _Handler)
        self.set_app(_answer)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever sends nothing, or no HTTP, is no fault of ours: the base class would print a traceback."""
        log.debug("metrics request failed", error=repr(sys.exception()))


def serve(**_: object) -> None:
    """A worker is ready again each time it has reached the broker; but it listens once."""
    _listen()


@cache
def _listen() -> None:
    """Answer on METRICS_PORT in a thread of this process, if it is set."""
    if not settings.METRICS_PORT:
        return
    try:
        server = _Listener(settings.HOST, settings.METRICS_PORT)
    except OSError as fault:
        log.warning("cannot listen on METRICS_PORT", port=settings.METRICS_PORT, error=repr(fault))
        return
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()


def _answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    if environ["PATH_INFO"] != "/metrics" or not is_authorized(environ.get("HTTP_AUTHORIZATION", "")):
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"Not found\n"]
    start_response("200 OK", [("Content-Type", CONTENT_TYPE_LATEST)])
    return [process_metrics()]
