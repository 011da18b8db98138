import logging
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from core import log_throttle
from core.observability.logging import ThrottleFilter, redact_event
from tests.factories import IVANOV, ROMASHKA


def record(logger: str) -> logging.LogRecord:
    try:
        int("no number")
    except ValueError:
        return logging.LogRecord(logger, logging.ERROR, "", 1, "message", None, sys.exc_info())
    raise AssertionError


def test_line_about_a_suspicious_request_has_no_traceback() -> None:
    suspicious, own = record("django.security.DisallowedHost"), record("django.request")
    assert ThrottleFilter().filter(suspicious)
    assert ThrottleFilter().filter(own)
    assert (suspicious.exc_info, bool(own.exc_info)) == (None, True)


@pytest.mark.parametrize(
    ("logger", "message", "arguments"),
    [
        ("django.security.DisallowedHost", "Invalid HTTP_HOST header: %d", True),
        ("django.security.csrf", "Forbidden %d", True),
        ("django.request", "%s: %s", True),
        ("gunicorn.error", "Invalid request from ip=%s: %.200s", True),
        ("axes.handlers.database", "failed login of {}", False),
        ("core.http", {"event": "request failed"}, False),
    ],
)
def test_lines_caused_by_clients_are_rate_limited(
    logger: str, message: Any, arguments: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(monotonic=lambda: clock.now, now=1000.0)
    monkeypatch.setattr(log_throttle, "time", clock)
    throttled = ThrottleFilter()

    def passes(number: int) -> tuple[bool, Any]:
        msg = {**message, "path": f"/{number}"} if isinstance(message, dict) else message
        entry = logging.LogRecord(logger, logging.WARNING, "", 1, msg, None, None)
        return throttled.filter(entry), entry.msg

    assert [number for number in range(100) if passes(number)[0]] == [0]
    clock.now += log_throttle.EVERY_SECONDS
    passed, msg = passes(100)
    assert passed
    assert "99" in str(msg)


def test_lines_about_our_own_errors_are_not_rate_limited() -> None:
    entry = logging.LogRecord("worker.tasks", logging.ERROR, "", 1, "message", None, None)
    assert all(ThrottleFilter().filter(entry) for _ in range(3))


def test_inns_are_masked_above_debug() -> None:
    event = {"level": "info", "event": ROMASHKA, "reason": {"payer_inn": IVANOV}}
    assert redact_event(None, "", event) == {
        "level": "info",
        "event": "77******93",
        "reason": {"payer_inn": "50********59"},
    }
    event["level"] = "debug"
    assert redact_event(None, "", event) == event
