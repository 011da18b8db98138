import json
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from django.urls import resolve
from gunicorn.workers.gthread import ThreadWorker

from ingest.banks.registry import ENDPOINTS
from ingest.views import webhook
from web import gunicorn_worker, load_shedding

PATHS = [f"{load_shedding.WEBHOOK_PREFIX}{endpoint.name}/" for endpoint in ENDPOINTS]


def application(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b"reached"]


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        gunicorn_worker._request, "queue_seconds", load_shedding.WAIT_SECONDS_MAX + 0.01, raising=False
    )


def request(path: str) -> tuple[str, dict[str, str], bytes]:
    head: list[Any] = []
    chunks = load_shedding.load_shedding(application)(
        {"PATH_INFO": path}, lambda *arguments: head.extend(arguments)
    )  # type: ignore[arg-type, return-value]
    return head[0], dict(head[1]), b"".join(chunks)


@pytest.mark.parametrize("path", PATHS)
def test_shed_paths_are_the_webhook_endpoints(path: str) -> None:
    assert resolve(path).func is webhook


@pytest.mark.usefixtures("late")
@pytest.mark.parametrize("path", PATHS)
def test_late_delivery_gets_503_before_the_application(path: str) -> None:
    status, headers, body = request(path)
    assert status == "503 Service Unavailable"
    assert (headers["Retry-After"], headers["Content-Type"]) == ("5", "application/json")
    assert int(headers["Content-Length"]) == len(body)
    assert json.loads(body) == {"error": "too busy, please send again"}


@pytest.mark.usefixtures("late")
@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/admin/", "/api/organizations/1234567890/balance/"])
def test_reads_and_probes_are_not_shed(path: str) -> None:
    assert request(path)[2] == b"reached"


def test_queue_seconds_measures_the_wait_for_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ThreadWorker, "enqueue_req", lambda *_: None)  # raises if gunicorn renamed it
    monkeypatch.setattr(ThreadWorker, "handle", lambda *_: None)
    times = iter([100.0, 100.5])
    monkeypatch.setattr(gunicorn_worker, "time", SimpleNamespace(monotonic=lambda: next(times)))
    monkeypatch.setattr(gunicorn_worker, "_request", threading.local())
    worker, connection = object.__new__(gunicorn_worker.BufferedThreadWorker), SimpleNamespace()

    worker._dispatch(connection)
    worker.handle(connection)
    assert request(PATHS[0])[0] == "503 Service Unavailable"


def test_timely_delivery_reaches_the_application() -> None:
    assert request(PATHS[0])[2] == b"reached"
