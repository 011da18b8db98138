import logging
import sys

from config.logs import OneLine, mask
from tests.cast import IVANOV, ROMASHKA


def record(logger: str) -> logging.LogRecord:
    try:
        int("no number")
    except ValueError:
        return logging.LogRecord(logger, logging.ERROR, "", 1, "said", None, sys.exc_info())
    raise AssertionError


def test_a_strangers_request_is_one_line_in_the_log() -> None:
    strangers, ours = record("django.security.DisallowedHost"), record("django.request")
    assert OneLine().filter(strangers)
    assert OneLine().filter(ours)
    assert (strangers.exc_info, bool(ours.exc_info)) == (None, True)


def test_above_debug_no_inn_is_whole() -> None:
    said = {"level": "info", "event": ROMASHKA, "reason": {"payer_inn": IVANOV}}
    assert mask(None, "", said) == {
        "level": "info",
        "event": "77******93",
        "reason": {"payer_inn": "50********59"},
    }
    said["level"] = "debug"
    assert mask(None, "", said) == said
