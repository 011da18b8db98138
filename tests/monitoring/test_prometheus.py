import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from core.db import clock
from ingest import inbox
from ingest.models import LedgerVerification, SuspectedDuplicate, Webhook
from monitoring import prometheus, stats
from tests.factories import make_webhook
from tests.monitoring.test_dashboard import create_verification
from worker.heartbeats import record_heartbeat
from worker.models import Heartbeat

pytestmark = pytest.mark.django_db


def samples(response: Any) -> dict[str, float]:
    """Return each sample's value by its name and labels, as Prometheus writes them."""
    return {
        re.sub(
            r"\{\}$", "", f"{one.name}{{{','.join(f'{k}={v}' for k, v in one.labels.items())}}}"
        ): one.value
        for family in text_string_to_metric_families(response.content.decode())
        for one in family.samples
    }


@pytest.fixture
def without_token(settings: Any) -> None:
    settings.DEBUG = True


def test_metrics_are_not_found_in_production_without_a_token() -> None:
    response = Client().get("/metrics")
    assert (response.status_code, response.json()) == (404, {"error": "Not found"})


@pytest.mark.parametrize("debug", [True, False])
def test_metrics_require_the_token_if_it_is_set(settings: Any, debug: bool) -> None:
    settings.DEBUG, settings.METRICS_TOKEN = debug, "s3cret-ключ"

    for header in ["", "Bearer", "Bearer wrong", "s3cret", "Basic s3cret"]:
        response = Client().get("/metrics", headers={"Authorization": header})
        assert response.status_code == 401
        assert response["WWW-Authenticate"] == "Bearer"

    settings.METRICS_TOKEN = "s3cret"
    response = Client().get("/metrics", headers={"Authorization": "Bearer s3cret"})
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/plain; version=")


@pytest.mark.usefixtures("without_token")
def test_gauges_equal_the_dashboards_figures() -> None:
    first = make_webhook()
    SuspectedDuplicate.objects.create(webhook=make_webhook(status=Webhook.Status.FAILED), first=first)
    for reason in ("one", "another"):
        inbox.record_unrecognized(inbox.Delivery(b"{}", "tbank"), reason.encode(), reason)
    record_heartbeat(Heartbeat.Kind.WORKER, "one", 4)
    record_heartbeat(Heartbeat.Kind.WORKER, "two", 2)
    record_heartbeat(Heartbeat.Kind.SCHEDULER, "three", 1)
    Heartbeat.objects.filter(name="two").update(seen_at=clock.database_now() - stats.HOUR / 2)
    create_verification(drift="something")

    gauges = samples(Client().get("/metrics"))

    assert gauges["prihod_database_up"] == 1
    assert gauges["prihod_webhooks_pending"] == 1
    assert 0 <= gauges["prihod_oldest_pending_age_seconds"] < 60
    assert gauges["prihod_webhooks_failed"] == 1
    assert gauges["prihod_unrecognized_deliveries_open"] == 2
    assert gauges["prihod_suspected_duplicates_open"] == 1
    assert gauges["prihod_workers_up"] == 1
    assert gauges["prihod_worker_processes_up"] == 4
    assert gauges["prihod_schedulers_up"] == 1
    assert gauges["prihod_ledger_drift"] == 1
    verified_at = LedgerVerification.objects.get().ended_at.timestamp()
    assert gauges["prihod_ledger_verified_timestamp_seconds"] == pytest.approx(verified_at)


@pytest.mark.usefixtures("without_token")
def test_drift_gauge_is_absent_before_the_first_verification() -> None:
    assert "prihod_ledger_drift" not in samples(Client().get("/metrics"))


@pytest.mark.usefixtures("without_token")
def test_empty_counter_file_of_a_starting_process_is_skipped(settings: Any, tmp_path: Path) -> None:
    settings.METRICS_DIR = tmp_path
    (tmp_path / "counter_4711.db").touch()

    response = Client().get("/metrics")

    assert response.status_code == 200
    assert samples(response)["prihod_database_up"] == 1


@pytest.mark.usefixtures("without_token")
def test_counters_are_exported_while_the_database_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OperationalError(2006, "gone away")

    monkeypatch.setattr(clock, "database_now", fail)

    exported = samples(Client().get("/metrics"))

    assert exported["prihod_database_up"] == 0
    assert "prihod_webhooks_pending" not in exported
    assert "prihod_webhooks_applied_total" in exported


@contextmanager
def listening(host: str) -> Iterator[prometheus._Listener]:
    listener = prometheus._Listener(host, 0)
    thread = threading.Thread(target=listener.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield listener
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_idle_connections_are_closed_and_delay_no_scrape(
    host: str, settings: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    settings.DEBUG, settings.METRICS_TOKEN = True, ""
    monkeypatch.setattr(prometheus._Handler, "timeout", 1.0)
    with listening(host) as listener:
        port = listener.server_address[1]
        idle = [socket.create_connection((host, port)) for _ in range(5)]
        idle[0].sendall(b"GET /met")
        idle[1].sendall(b"\0\r\n\r\n")
        assert scrape(host, port) == 200
        for connection in idle:
            connection.settimeout(30)
            while connection.recv(1000):
                pass
            connection.close()
    assert "Traceback" not in capfd.readouterr().err


def test_connections_beyond_the_limit_are_closed(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.DEBUG, settings.METRICS_TOKEN = True, ""
    monkeypatch.setattr(prometheus, "CONNECTIONS_MAX", 1)
    with listening("127.0.0.1") as listener:
        port = listener.server_address[1]
        with (
            socket.create_connection(("127.0.0.1", port)),
            socket.create_connection(("127.0.0.1", port), timeout=30) as second,
        ):
            assert second.recv(1) == b""
        assert listener._slots.acquire(timeout=30)  # the first connection has ended
        listener._slots.release()
        assert scrape("127.0.0.1", port) == 200


def scrape(host: str, port: int) -> int:
    connection = HTTPConnection(host, port, timeout=30)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().status
    finally:
        connection.close()
