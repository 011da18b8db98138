"""Serve /metrics for Prometheus: the processes' counters, and gauges from the database.

The counters of all processes of one program are in METRICS_DIR. Processes that don't share it with web, on
another machine or in another container, export their own counters on METRICS_PORT, without gauges.
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
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from core.db import clock
from core.http import error_response, json_view
from monitoring import cluster
from monitoring.stats import Stats
from worker.models import Heartbeat

log = structlog.get_logger(__name__)

CONNECTION_TIMEOUT_SECONDS = 5.0  # without a byte
CONNECTIONS_MAX = 32  # concurrent; Prometheus needs one


def process_metrics() -> bytes:
    """Return the counters, in text format, of all processes that share METRICS_DIR, or else of this one."""
    if not settings.METRICS_DIR:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    registry.register(_SharedCounters(settings.METRICS_DIR))
    return generate_latest(registry)


class _SharedCounters(Collector):
    """Merge the files of all processes.

    The library's collector fails on the empty file of a process that is just starting, and on one that a
    process removes meanwhile because it counted nothing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        merge: Any = MultiProcessCollector.merge  # untyped
        while True:
            try:
                files = [str(file) for file in self._folder.glob("*.db") if file.stat().st_size]
                metrics: Iterable[Metric] = merge(files, accumulate=True)
            except FileNotFoundError:
                continue
            return metrics


class _DatabaseGauges(Collector):
    """Query the gauges during the scrape."""

    def collect(self) -> Iterator[Metric]:
        stats = Stats(clock.database_now())
        yield _gauge("prihod_webhooks_pending", "Webhooks received and not yet applied", stats.backlog.number)
        yield _gauge(
            "prihod_oldest_pending_age_seconds",
            "Age of the oldest pending webhook, 0 without any",
            stats.oldest_pending_seconds or 0.0,
        )
        yield _gauge("prihod_webhooks_failed", "Failed webhooks that need an operator", stats.failed.number)
        yield _gauge(
            "prihod_unrecognized_deliveries_open",
            "Unrecognized deliveries that need an operator",
            stats.unrecognized.number,
        )
        yield _gauge(
            "prihod_suspected_duplicates_open",
            "Suspected duplicates that need an operator",
            stats.suspected_duplicates.number,
        )
        waiting, age = stats.unassigned, stats.suspense_age
        yield _gauge(
            "prihod_suspense_payments", "Payments in suspense that wait for an organization", waiting.count
        )
        yield _gauge("prihod_suspense_kopecks", "Their sum in kopecks", waiting.kopecks)
        yield _gauge(
            "prihod_suspense_oldest_age_seconds",
            "Age of the first of them, 0 without any",
            age.total_seconds() if age else 0.0,
        )
        overdue = stats.overdue_differences
        yield _gauge(
            "prihod_reconciliation_differences_overdue",
            "Differences with the bank statements that are not settled in time",
            overdue.count,
        )
        yield _gauge("prihod_reconciliation_kopecks_overdue", "Their sum in kopecks", overdue.kopecks)
        yield _gauge(
            "prihod_bank_statements_unproven", "Bank statements that prove nothing", stats.unproven_statements
        )
        yield _gauge(
            "prihod_bank_days_uncovered",
            "Working days of the accounts without a proven statement",
            stats.uncovered_days,
        )
        yield _gauge(
            "prihod_bank_balance_breaks",
            "Days whose closing balance is not the next opening balance",
            stats.balance_breaks,
        )
        if reconciled := stats.reconciliation:
            yield _gauge(
                "prihod_reconciliation_unexplained_kopecks",
                "What no list explained of ledger minus bank last night",
                reconciled.unexplained,
            )
        yield from _cluster()
        live = [status.heartbeat for status in stats.heartbeats if not status.is_stale]
        workers = [heartbeat for heartbeat in live if heartbeat.kind == Heartbeat.Kind.WORKER]
        processes = sum(heartbeat.processes for heartbeat in workers)
        yield _gauge("prihod_workers_up", "Workers with a recent heartbeat", len(workers))
        yield _gauge("prihod_worker_processes_up", "Processes of these workers", processes)
        yield _gauge("prihod_schedulers_up", "Schedulers with a recent heartbeat", len(live) - len(workers))
        if last := stats.verification:
            drift = int(bool(last.drift))
            yield _gauge("prihod_ledger_drift", "1 if the last verification found drift", drift)
        if stats.verified_at:
            yield _gauge(
                "prihod_ledger_verified_timestamp_seconds",
                "End of the last verification, without one the first payment, in Unix time",
                stats.verified_at.timestamp(),
            )


def _cluster() -> Iterator[Metric]:
    nodes = cluster.status()
    yield _gauge(
        "prihod_database_nodes_online", "Nodes of the database's cluster that take part", nodes.online
    )
    yield _gauge("prihod_database_nodes_listed", "Those that DATABASE_URL lists", nodes.listed)
    yield CounterMetricFamily(
        "prihod_database_conflicts",
        "Transactions that the connected node refused for another's",
        nodes.conflicts,
    )
    yield CounterMetricFamily(
        "prihod_database_flow_control_seconds",
        "Seconds of Galera's flow control on that node",
        nodes.paused_seconds,
    )


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, value)


def database_metrics() -> bytes:
    """Return the gauges; only prihod_database_up, as 0, if the database does not respond."""
    registry = CollectorRegistry()
    try:
        registry.register(_DatabaseGauges())
        gauges, up = generate_latest(registry), 1
    except (DatabaseError, InterfaceError) as exc:
        log.warning("database metrics unavailable", error=repr(exc))
        gauges, up = b"", 0
    return gauges + (
        b"# HELP prihod_database_up 1 if the database responded to this request\n"
        b"# TYPE prihod_database_up gauge\n"
        b"prihod_database_up %d\n" % up
    )


def is_authorized(authorization: str) -> bool:
    """Check the Authorization header against METRICS_TOKEN; without a token allow development only."""
    if not settings.METRICS_TOKEN:
        return bool(settings.DEBUG)
    return secrets.compare_digest(authorization.encode(), f"Bearer {settings.METRICS_TOKEN}".encode())


@json_view("GET", "HEAD")
def metrics(request: HttpRequest) -> HttpResponse:
    """Answer 404 in production without a METRICS_TOKEN, so that the endpoint's existence is not disclosed."""
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
    """Use one thread per connection, and a limited number of them, so that an idle client delays no other."""

    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        self.address_family = AF_INET6 if ":" in host else AF_INET
        self._slots = BoundedSemaphore(CONNECTIONS_MAX)
        super().__init__((host, port), _Handler)
        self.set_app(_application)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._slots.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a client that sends nothing, or no HTTP; the base class would print a traceback."""
        log.debug("metrics request failed", error=repr(sys.exception()))


def serve(**_: object) -> None:
    """Start the listener once; a worker sends worker_ready after each reconnection to the broker."""
    _listen()


@cache
def _listen() -> None:
    """Listen on METRICS_PORT, if it is set, in a thread of this process."""
    if not settings.METRICS_PORT:
        return
    try:
        server = _Listener(settings.HOST, settings.METRICS_PORT)
    except OSError as exc:
        log.warning("cannot listen on METRICS_PORT", port=settings.METRICS_PORT, error=repr(exc))
        return
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()


def _application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    if environ["PATH_INFO"] != "/metrics" or not is_authorized(environ.get("HTTP_AUTHORIZATION", "")):
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"Not found\n"]
    start_response("200 OK", [("Content-Type", CONTENT_TYPE_LATEST)])
    return [process_metrics()]
