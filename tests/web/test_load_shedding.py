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


def reached(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b"reached"]


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        gunicorn_worker._request, "queue_seconds", load_shedding.WAIT_SECONDS_MAX + 0.01, raising=False
    )


def ask(path: str) -> tuple[str, dict[str, str], bytes]:
    said: list[Any] = []
    chunks = load_shedding.load_shedding(reached)({"PATH_INFO": path}, lambda *told: said.extend(told))  # type: ignore[arg-type, return-value]
    return said[0], dict(said[1]), b"".join(chunks)


@pytest.mark.parametrize("path", PATHS)
def test_the_doors_that_are_shed_are_the_banks(path: str) -> None:
    assert resolve(path).func is webhook


@pytest.mark.usefixtures("waited")
@pytest.mark.parametrize("path", PATHS)
def test_a_delivery_that_waited_too_long_reaches_nothing_and_is_asked_for_again(path: str) -> None:
    status, headers, answer = ask(path)
    assert status == "503 Service Unavailable"
    assert (headers["Retry-After"], headers["Content-Type"]) == ("5", "application/json")
    assert int(headers["Content-Length"]) == len(answer)
    assert json.loads(answer) == {"error": "too busy, please send again"}


@pytest.mark.usefixtures("waited")
@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/admin/", "/api/organizations/1234567890/balance/"])
def test_readers_and_probes_are_not_shed(path: str) -> None:
    assert ask(path)[2] == b"reached"


def test_the_wait_is_that_between_gunicorns_queue_and_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ThreadWorker, "enqueue_req", lambda *_: None)  # raises if gunicorn renamed it
    monkeypatch.setattr(ThreadWorker, "handle", lambda *_: None)
    times = iter([100.0, 100.5])
    monkeypatch.setattr(gunicorn_worker, "time", SimpleNamespace(monotonic=lambda: next(times)))
    monkeypatch.setattr(gunicorn_worker, "_request", threading.local())
    worker, connection = object.__new__(gunicorn_worker.BufferedThreadWorker), SimpleNamespace()

    worker._give_to_a_thread(connection)
    worker.handle(connection)
    assert ask(PATHS[0])[0] == "503 Service Unavailable"


def test_a_delivery_in_time_is_let_through() -> None:
    assert ask(PATHS[0])[2] == b"reached"
