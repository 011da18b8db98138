import time
from logging import LogRecord
from typing import Any

import pytest
from structlog.contextvars import bind_contextvars, clear_contextvars

from core.observability import sentry
from tests.factories import ROMASHKA


@pytest.fixture(autouse=True)
def no_earlier_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentry, "_reported", {})


def scrubbed(event: dict[str, Any], logged: dict[str, Any] | None = None) -> Any:
    hint = {"log_record": LogRecord("worker", 40, "", 1, logged, None, None)} if logged else {}
    return sentry._scrub(event, hint)  # type: ignore[arg-type]


def failure(kind: str = "OperationalError") -> dict[str, Any]:
    return {"exception": {"values": [{"type": kind, "value": f"of {ROMASHKA}"}]}, "transaction": "sweep"}


def test_same_error_is_reported_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    assert scrubbed(failure())
    assert scrubbed(failure()) is None
    assert scrubbed(failure("KeyError"))
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    assert scrubbed(failure())


def test_logged_error_is_reported_with_its_message_and_ids() -> None:
    clear_contextvars()
    bind_contextvars(task_id="t1")
    logged = {"event": "webhook failed", "error": f"INN {ROMASHKA}", "exc_info": None}
    report = scrubbed({"logger": "worker", "logentry": {"message": str(logged)}}, logged)
    clear_contextvars()

    assert report["logentry"] == {"message": "webhook failed"}
    assert report["extra"] == {"error": "INN 77******93"}
    assert report["tags"] == {"task_id": "t1"}


def test_report_of_a_request_contains_only_method_and_url() -> None:
    request = {"method": "POST", "url": f"http://x/{ROMASHKA}/", "headers": {"X": "y"}, "data": "body"}
    report = scrubbed({**failure(), "request": {**request, "query_string": "q=1", "cookies": {}, "env": {}}})
    assert report["request"] == {"method": "POST", "url": "http://x/77******93/"}
    assert report["exception"]["values"][0]["value"] == "of 77******93"
