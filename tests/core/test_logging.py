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
        return logging.LogRecord(logger, logging.ERROR, "", 1, "said", None, sys.exc_info())
    raise AssertionError


def test_a_strangers_request_is_one_line_in_the_log() -> None:
    strangers, ours = record("django.security.DisallowedHost"), record("django.request")
    assert ThrottleFilter().filter(strangers)
    assert ThrottleFilter().filter(ours)
    assert (strangers.exc_info, bool(ours.exc_info)) == (None, True)


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
def test_flood_of_a_strangers_lines_is_a_line_now_and_then(
    logger: str, message: Any, arguments: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(monotonic=lambda: clock.now, now=1000.0)
    monkeypatch.setattr(log_throttle, "time", clock)
    throttled = ThrottleFilter()

    def passes(number: int) -> tuple[bool, Any]:
        said = {**message, "path": f"/{number}"} if isinstance(message, dict) else message
        line = logging.LogRecord(logger, logging.WARNING, "", 1, said, None, None)
        return throttled.filter(line), line.msg

    assert [number for number in range(100) if passes(number)[0]] == [0]
    clock.now += log_throttle.EVERY_SECONDS
    passed, said = passes(100)
    assert passed
    assert "99" in str(said)


def test_lines_of_our_own_faults_are_not_throttled() -> None:
    line = logging.LogRecord("worker.tasks", logging.ERROR, "", 1, "said", None, None)
    assert all(ThrottleFilter().filter(line) for _ in range(3))


def test_above_debug_no_inn_is_whole() -> None:
    said = {"level": "info", "event": ROMASHKA, "reason": {"payer_inn": IVANOV}}
    assert redact_event(None, "", said) == {
        "level": "info",
        "event": "77******93",
        "reason": {"payer_inn": "50********59"},
    }
    said["level"] = "debug"
    assert redact_event(None, "", said) == said
