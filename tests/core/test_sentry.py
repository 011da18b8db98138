import time
from logging import LogRecord
from typing import Any

import pytest
from structlog.contextvars import bind_contextvars, clear_contextvars

from core.observability import sentry
from tests.factories import ROMASHKA


@pytest.fixture(autouse=True)
def nothing_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentry, "_reported", {})


def sent(event: dict[str, Any], line: dict[str, Any] | None = None) -> Any:
    hint = {"log_record": LogRecord("worker", 40, "", 1, line, None, None)} if line else {}
    return sentry._scrub(event, hint)  # type: ignore[arg-type]


def failure(kind: str = "OperationalError") -> dict[str, Any]:
    return {"exception": {"values": [{"type": kind, "value": f"of {ROMASHKA}"}]}, "transaction": "sweep"}


def test_the_same_error_is_reported_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    assert sent(failure())
    assert sent(failure()) is None
    assert sent(failure("KeyError"))
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    assert sent(failure())


def test_what_is_logged_as_an_error_is_reported_in_its_own_words_with_its_ids() -> None:
    clear_contextvars()
    bind_contextvars(task_id="t1")
    line = {"event": "webhook failed", "error": f"INN {ROMASHKA}", "exc_info": None}
    report = sent({"logger": "worker", "logentry": {"message": str(line)}}, line)
    clear_contextvars()

    assert report["logentry"] == {"message": "webhook failed"}
    assert report["extra"] == {"error": "INN 77******93"}
    assert report["tags"] == {"task_id": "t1"}


def test_of_a_request_only_method_and_address_are_told() -> None:
    request = {"method": "POST", "url": f"http://x/{ROMASHKA}/", "headers": {"X": "y"}, "data": "body"}
    report = sent({**failure(), "request": {**request, "query_string": "q=1", "cookies": {}, "env": {}}})
    assert report["request"] == {"method": "POST", "url": "http://x/77******93/"}
    assert report["exception"]["values"][0]["value"] == "of 77******93"
