from typing import Any
from uuid import UUID

import pytest

from core.observability.logging import redact_event
from core.observability.redaction import exception_summary, mask_inns, redact, redact_urls
from tests.factories import IVANOV, ROMASHKA

ALL_DIGITS = UUID("12345678-1234-5678-1234-123456789012")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ROMASHKA, "77******93"),
        (IVANOV, "50********59"),
        (f"/api/organizations/{ROMASHKA}/balance/", "/api/organizations/77******93/balance/"),
        (rf"\n{ROMASHKA}, ИНН{ROMASHKA}, inn{IVANOV}", r"\n77******93, ИНН77******93, inn50********59"),
        (f"{ROMASHKA}-{IVANOV}", "77******93-50********59"),
    ],
)
def test_inn_is_masked_anywhere_in_a_text(text: str, expected: str) -> None:
    assert mask_inns(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        str(ALL_DIGITS),
        ALL_DIGITS.hex,
        f"webhook-17-{ALL_DIGITS}",
        f"operation {str(ALL_DIGITS).upper()} and {ALL_DIGITS.hex}",
        "2026-11-24T19:24:15.394250Z",
        "account 40702810900000012345, 123456789 and 12345678901",
    ],
)
def test_ids_times_and_other_numbers_are_not_masked(text: str) -> None:
    assert mask_inns(text) == text


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            """IntegrityError(1062, "Duplicate entry 'PAY-1' for key 'payment.number'")""",
            """IntegrityError(1062, "Duplicate entry '…' for key 'payment.number'")""",
        ),
        (
            """(1366, "Incorrect string value: '\\xF0 o'clock' for column `x`.`y` at row 1")""",
            """(1366, "Incorrect string value: '…' for column `x`.`y` at row 1")""",
        ),
        (
            """(1292, "Truncated incorrect DOUBLE value: 'PAY-1'")\nnext line""",
            """(1292, "Truncated incorrect DOUBLE value: '…'")\nnext line""",
        ),
    ],
)
def test_value_quoted_by_a_database_error_is_redacted(error: str, expected: str) -> None:
    assert redact(error) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"amount_kopecks": 1234567890, "paid": True, "at": 1.5, "by": None}, None),
        ({ROMASHKA: [IVANOV, (1, ROMASHKA)]}, {"77******93": ["50********59", [1, "77******93"]]}),
        (ROMASHKA.encode(), "b'77******93'"),
        (ValueError(ROMASHKA), "ValueError('77******93')"),
    ],
)
def test_numbers_remain_and_all_else_is_redacted(value: Any, expected: Any) -> None:
    assert redact(value) == (expected or value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://:m4rker@host:6379/0", "redis://***@host:6379/0"),
        ("InvalidURL(\"nonnumeric port: 'm4rker@host'\") of http://user:m4r@ker@host/x", None),
        (
            "https://key@sentry.example/1 and mysql://u:m4rker@h/d",
            "https://***@sentry.example/1 and mysql://***@h/d",
        ),
        ("https://host/@channel?to=a@b", "https://host/@channel?to=a@b"),
        ("no URL: a@b", "no URL: a@b"),
    ],
)
def test_url_credentials_are_redacted(text: str, shown: str | None) -> None:
    assert redact_urls(text) == (shown or text.replace("user:m4r@ker@", "***@"))


@pytest.mark.parametrize("level", ["debug", "info", "error"])
def test_log_event_contains_no_url_credentials(level: str) -> None:
    event = {"level": level, "event": "lost", "error": repr(OSError("redis://:m4rker@host"))}
    assert "m4rker" not in str(redact_event(None, "", event))


def test_exception_summary_contains_no_argument() -> None:
    assert exception_summary(ValueError("http://u:m4rker@h")) == "ValueError"
    assert exception_summary(
        OSError(111, "Connection refused", "m4rker")
    ) == "OSError: Connection refused".replace("OSError", type(OSError(111, "x")).__name__)
