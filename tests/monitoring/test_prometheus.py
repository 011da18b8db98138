import re
import socket
import threading
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from core.db import clock
from ingest import inbox
from ingest.models import LedgerVerification, Webhook
from monitoring import prometheus, stats
from tests.factories import make_webhook
from tests.monitoring.test_dashboard import verification
from worker.heartbeats import record_heartbeat
from worker.models import Heartbeat

pytestmark = pytest.mark.django_db


def told(answer: Any) -> dict[str, float]:
    """Each sample's value by its name, with its labels as Prometheus writes them."""
    return {
        re.sub(
            r"\{\}$", "", f"{one.name}{{{','.join(f'{k}={v}' for k, v in one.labels.items())}}}"
        ): one.value
        for family in text_string_to_metric_families(answer.content.decode())
        for one in family.samples
    }


@pytest.fixture
def open_to_all(settings: Any) -> None:
    settings.DEBUG = True


def test_in_production_nobody_sees_metrics_as_long_as_no_token_is_set() -> None:
    answer = Client().get("/metrics")
    assert (answer.status_code, answer.json()) == (404, {"error": "Not found"})


@pytest.mark.parametrize("debug", [True, False])
def test_with_a_token_only_its_bearer_sees_them(settings: Any, debug: bool) -> None:
    settings.DEBUG, settings.METRICS_TOKEN = debug, "s3cret-ключ"

    for header in ["", "Bearer", "Bearer wrong", "s3cret", "Basic s3cret"]:
        answer = Client().get("/metrics", headers={"Authorization": header})
        assert answer.status_code == 401
        assert answer["WWW-Authenticate"] == "Bearer"

    settings.METRICS_TOKEN = "s3cret"
    answer = Client().get("/metrics", headers={"Authorization": "Bearer s3cret"})
    assert answer.status_code == 200
    assert answer["Content-Type"].startswith("text/plain; version=")


@pytest.mark.usefixtures("open_to_all")
def test_gauges_are_the_dashboards_figures() -> None:
    make_webhook()
    make_webhook(status=Webhook.Status.FAILED)
    for reason in ("one", "another"):
        inbox.record_unrecognized(inbox.Delivery(b"{}", "tbank"), reason.encode(), reason)
    record_heartbeat(Heartbeat.Kind.WORKER, "one", 4)
    record_heartbeat(Heartbeat.Kind.WORKER, "two", 2)
    record_heartbeat(Heartbeat.Kind.SCHEDULER, "three", 1)
    Heartbeat.objects.filter(name="two").update(seen_at=clock.database_now() - stats.HOUR / 2)
    verification(drift="something")

    gauges = told(Client().get("/metrics"))

    assert gauges["prihod_database_up"] == 1
    assert gauges["prihod_webhooks_pending"] == 1
    assert 0 <= gauges["prihod_oldest_pending_age_seconds"] < 60
    assert gauges["prihod_webhooks_failed"] == 1
    assert gauges["prihod_unrecognized_deliveries_open"] == 2
    assert gauges["prihod_workers_up"] == 1
    assert gauges["prihod_worker_processes_up"] == 4
    assert gauges["prihod_schedulers_up"] == 1
    assert gauges["prihod_ledger_drift"] == 1
    assert gauges["prihod_ledger_verified_timestamp_seconds"] == pytest.approx(
        LedgerVerification.objects.get().ended_at.timestamp()
    )


@pytest.mark.usefixtures("open_to_all")
def test_books_that_were_never_verified_are_no_right_books() -> None:
    assert "prihod_ledger_drift" not in told(Client().get("/metrics"))


@pytest.mark.usefixtures("open_to_all")
def test_a_process_that_is_just_beginning_has_counted_nothing_yet(settings: Any, tmp_path: Path) -> None:
    """Its file is created before it has its size."""
    settings.METRICS_DIR = tmp_path
    (tmp_path / "counter_4711.db").touch()

    answer = Client().get("/metrics")

    assert answer.status_code == 200
    assert told(answer)["prihod_database_up"] == 1


@pytest.mark.usefixtures("open_to_all")
def test_without_the_database_counts_are_told_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OperationalError(2006, "gone away")

    monkeypatch.setattr(clock, "database_now", fail)

    gauges = told(Client().get("/metrics"))

    assert gauges["prihod_database_up"] == 0
    assert "prihod_webhooks_pending" not in gauges
    assert "prihod_webhooks_applied_total" in gauges


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_silent_clients_hold_up_no_scrape(
    host: str, settings: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    settings.DEBUG, settings.METRICS_TOKEN = True, ""
    monkeypatch.setattr(prometheus._Handler, "timeout", 1.0)
    listener = prometheus._Listener(host, 0)
    port = listener.server_address[1]
    serving = threading.Thread(target=listener.serve_forever, args=(0.05,))
    serving.start()
    try:
        silent = [socket.create_connection((host, port)) for _ in range(5)]
        silent[0].sendall(b"GET /met")
        silent[1].sendall(b"\0\r\n\r\n")
        assert scraped(host, port) == 200
        for connection in silent:  # and none of them for long
            connection.settimeout(30)
            while connection.recv(1000):
                pass
            connection.close()
    finally:
        listener.shutdown()
        listener.server_close()
        serving.join()
    assert "Traceback" not in capfd.readouterr().err


def test_more_clients_than_are_served_are_hung_up_on(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.DEBUG, settings.METRICS_TOKEN = True, ""
    monkeypatch.setattr(prometheus, "CONNECTIONS_MAX", 1)
    listener = prometheus._Listener("127.0.0.1", 0)
    port = listener.server_address[1]
    serving = threading.Thread(target=listener.serve_forever, args=(0.05,))
    serving.start()
    try:
        with (
            socket.create_connection(("127.0.0.1", port)),
            socket.create_connection(("127.0.0.1", port), timeout=30) as second,
        ):
            assert second.recv(1) == b""
        assert listener._free.acquire(timeout=30)  # the first has left
        listener._free.release()
        assert scraped("127.0.0.1", port) == 200
    finally:
        listener.shutdown()
        listener.server_close()
        serving.join()


def scraped(host: str, port: int) -> int:
    connection = HTTPConnection(host, port, timeout=30)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().status
    finally:
        connection.close()
