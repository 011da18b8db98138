from typing import Any
from uuid import UUID

import pytest

from core.observability.redaction import mask_inns, redact
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
