import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from ingest.exceptions import InvalidDelivery
from ingest.parsing import parse, read
from ingest.versions import DELETED
from ledger.terms import PaymentTerms
from tests.factories import MIDNIGHT_IN_MOSCOW, SAMPLE, payment_body, terms

OPERATION_ID = "ccf0a86d-041b-4991-bcf7-e2352f7b8a4a"
PAYMENT = terms(145_000_00, inn=SAMPLE, operation_id=UUID(OPERATION_ID))


def parsed(**changed: Any) -> PaymentTerms:
    return parse(payment_body(PAYMENT, **changed))


def with_amount(raw: str) -> bytes:
    """Return a delivery with the amount written as `raw`."""
    return payment_body(PAYMENT, amount="@").replace(b'"@"', raw.encode())


def error_message(delivery: bytes) -> str:
    with pytest.raises(InvalidDelivery) as raised:
        parse(delivery)
    return str(raised.value)


def test_sample_is_parsed() -> None:
    sample = (
        b'{"operation_id": "ccf0a86d-041b-4991-bcf7-e2352f7b8a4a", "amount": 145000,'
        b' "payer_inn": "1234567890", "document_number": "PAY-328", "document_date": "2024-04-27T21:00:00Z"}'
    )
    assert parse(sample) == PAYMENT


def test_extra_fields_are_ignored() -> None:
    assert parsed(purpose="За ромашки", nested={"amount": [1, {}]}) == PAYMENT


@pytest.mark.parametrize("name", ["operation_id", "amount", "payer_inn", "document_number", "document_date"])
def test_missing_field_is_named(name: str) -> None:
    fields = json.loads(payment_body(PAYMENT))
    del fields[name]

    assert error_message(json.dumps(fields).encode()) == f"{name}: is missing"


@pytest.mark.parametrize("name", ["operation_id", "payer_inn", "document_number", "document_date"])
@pytest.mark.parametrize("value", [1, None, True, [], {}])
def test_field_of_wrong_type_is_named(name: str, value: object) -> None:
    assert error_message(payment_body(PAYMENT, **{name: value})).startswith(f"{name}: must be a string")


@pytest.mark.parametrize(
    ("raw", "kopecks"),
    [
        ("145000", 145_000_00),
        ("0.01", 1),
        ("1e2", 100_00),
        ("1E+02", 100_00),
        ("1.5e1", 15_00),
        ("100e-4", 1),
        ("1.10", 1_10),
        ("1.1000", 1_10),
        ("9999999999999.99", 999_999_999_999_999),
        ('"145000"', 145_000_00),
        ('"0.10"', 10),
        ('"7."', 7_00),
        ('".5"', 50),
        ('"007"', 7_00),
        (r'"\u0031"', 1_00),
    ],
)
def test_amount_is_parsed_to_the_kopeck(raw: str, kopecks: int) -> None:
    assert parse(with_amount(raw)).amount_kopecks == kopecks


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ("0", "must be greater than zero"),
        ("-1", "must be greater than zero"),
        ("-0.0", "must be greater than zero"),
        ('"0"', "must be greater than zero"),
        ("0.001", "must have at most 2 decimals"),
        ("1.005", "must have at most 2 decimals"),
        ("1.000000000000000000000000000000000001", "must have at most 2 decimals"),
        ("1e-3", "must have at most 2 decimals"),
        ("1e-999", "must have at most 2 decimals"),
        ("10000000000000", "must be at most 9999999999999.99"),
        ("1e999", "must be at most 9999999999999.99"),
        ('"99999999999999999999"', "must be at most 9999999999999.99"),
        ("1" * 65, "must not be longer than 64 characters"),
        ("9" * 10_000, "must not be longer than 64 characters"),
        ("1e1000000", "must be a number, or a string of digits with at most one point"),
        *(
            (raw, "must be a number, or a string of digits with at most one point")
            for raw in ("true", "null", "[1]", "{}", '""', '"."', '"1e2"', '"-1"', '"+1"', '"1_000"', '" 1"')
        ),
        *(
            (raw, "must be a number, or a string of digits with at most one point")
            for raw in ('"1,5"', '"1.2.3"', '"１"', '"1\\n"', '"0x1"', '"NaN"', '"Infinity"')
        ),
    ],
)
def test_invalid_amount_is_refused(raw: str, problem: str) -> None:
    assert error_message(with_amount(raw)) == f"amount: {problem}"


@given(st.integers(1, 999_999_999_999_999))
def test_every_amount_in_range_is_exact(kopecks: int) -> None:
    rubles = f"{kopecks // 100}.{kopecks % 100:02}"
    assert parse(with_amount(rubles)).amount_kopecks == kopecks
    assert parse(with_amount(f'"{rubles}"')).amount_kopecks == kopecks
    assert parse(with_amount(f"{kopecks}e-2")).amount_kopecks == kopecks


@pytest.mark.parametrize(
    "spelling",
    [
        OPERATION_ID.upper(),
        OPERATION_ID.replace("-", ""),
        f"{{{OPERATION_ID}}}",
        f"urn:uuid:{OPERATION_ID}",
        f"URN:UUID:{OPERATION_ID.upper()}",
    ],
)
def test_operation_id_is_parsed_in_every_usual_spelling(spelling: str) -> None:
    assert parsed(operation_id=spelling) == PAYMENT


@pytest.mark.parametrize(
    "spelling",
    [
        "",
        "PAY-328",
        OPERATION_ID[:-1],
        OPERATION_ID + "a",
        OPERATION_ID + "\n",
        f"{{{OPERATION_ID}",
        OPERATION_ID.replace("-", "_"),
        "ccf0a86d041b-4991-bcf7-e2352f7b8a4a",
        "ccf0a86d041b4991bcf7e2352f7b8a_a",
        "ｃcf0a86d-041b-4991-bcf7-e2352f7b8a4a",
    ],
)
def test_invalid_operation_id_is_refused(spelling: str) -> None:
    assert error_message(payment_body(PAYMENT, operation_id=spelling)) == "operation_id: must be a UUID"


@pytest.mark.parametrize(
    "inn", ["", "123456789", "12345678901", "123456789O", "1234567890\n", "１２３４５６７８９０"]
)
def test_invalid_inn_is_refused(inn: str) -> None:
    assert (
        error_message(payment_body(PAYMENT, payer_inn=inn))
        == "payer_inn: must be a string of exactly 10 or 12 digits"
    )


@pytest.mark.parametrize("number", ["1", "№ 328/а", "💸", "x" * 255, " ", "'; DROP TABLE ledger_payment; --"])
def test_document_number_is_unchanged(number: str) -> None:
    assert parsed(document_number=number).document_number == number


@pytest.mark.parametrize(
    ("number", "problem"),
    [
        ("", "must have 1 to 255 characters"),
        ("x" * 256, "must have 1 to 255 characters"),
        ("a\0b", "must not contain a NUL character"),
    ],
)
def test_invalid_document_number_is_refused(number: str, problem: str) -> None:
    assert error_message(payment_body(PAYMENT, document_number=number)) == f"document_number: {problem}"


@pytest.mark.parametrize(
    "spelling",
    [
        "2024-04-27T21:00:00Z",
        "2024-04-28T00:00:00+03:00",
        "2024-04-28T00:00+0300",
        "20240427T210000Z",
        "2024-04-27t21:00:00.000z",
        "2024-04-27 21:00:00",
        "2024-W17-6T21:00:00Z",
        "2024W176T21Z",
        "20240428T000000,000+03",
    ],
)
def test_document_date_is_the_same_instant_in_every_spelling(spelling: str) -> None:
    assert parsed(document_date=spelling).document_date == MIDNIGHT_IN_MOSCOW


def test_date_without_offset_is_in_the_banks_time_zone(settings: Settings) -> None:
    settings.BANK_TIME_ZONE = ZoneInfo("Europe/Moscow")

    assert parsed(document_date="2024-04-28T00:00:00").document_date == MIDNIGHT_IN_MOSCOW
    assert parsed(document_date="2024-04-28").document_date == MIDNIGHT_IN_MOSCOW
    assert parsed(document_date="2024-04-27T21:00:00Z").document_date == MIDNIGHT_IN_MOSCOW


def test_date_keeps_microseconds() -> None:
    date = parsed(document_date="2024-04-27T21:00:00.123456789Z").document_date
    assert date == datetime(2024, 4, 27, 21, 0, 0, 123456, tzinfo=UTC)


@pytest.mark.parametrize(
    ("date", "problem"),
    [
        ("", "must be an ISO 8601 date and time"),
        ("yesterday", "must be an ISO 8601 date and time"),
        ("27.04.2024", "must be an ISO 8601 date and time"),
        ("1714251600", "is not a date that exists"),
        ("2024-04-27x21:00:00", "must be an ISO 8601 date and time"),
        ("２０２４-04-27T21:00:00Z", "must be an ISO 8601 date and time"),
        ("2024-02-30T00:00:00Z", "is not a date that exists"),
        ("2024-04-27T25:00:00Z", "is not a date that exists"),
        ("2024-04-27T24:00:00Z", "is not a date that exists"),
        ("2024-04-27T24:00", "is not a date that exists"),
        ("2024-04-27T21:00:00+03:60", "is not a date that exists"),
        ("2024-04-27T21.5Z", "is not a date that exists"),
        ("0001-01-01T00:00:00+14:00", "is not a date that exists"),
        ("0999-12-31T00:00:00Z", "must lie between the years 1000 and 9999"),
        ("9999-12-31T23:59:59Z", "must lie between the years 1000 and 9999"),
    ],
)
def test_invalid_date_is_refused(date: str, problem: str) -> None:
    assert error_message(payment_body(PAYMENT, document_date=date)) == f"document_date: {problem}"


@pytest.mark.parametrize(
    ("delivery", "problem"),
    [
        (b"", "must be valid JSON"),
        (b"null", "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
        (b"[" + payment_body(PAYMENT) + b"]", "must be a JSON object"),
        (payment_body(PAYMENT)[:-1], "must be valid JSON"),
        (payment_body(PAYMENT) + b"x", "must be valid JSON"),
        (b"\xef\xbb\xbf" + payment_body(PAYMENT), "must be valid JSON"),
        (payment_body(PAYMENT).decode().encode("utf-16"), "must be UTF-8"),
        (payment_body(PAYMENT, extra="@").replace(b"@", b"\xff"), "must be UTF-8"),
        (payment_body(PAYMENT, extra="@").replace(b"@", rb"\ud800"), "must be valid JSON"),
        (payment_body(PAYMENT, extra=0).replace(b": 0}", b": NaN}"), "must be valid JSON"),
        (payment_body(PAYMENT, extra=0).replace(b": 0}", b": -Infinity}"), "must be valid JSON"),
        (
            payment_body(PAYMENT, extra=0).replace(b": 0}", b": " + b"[" * 30_000 + b"]" * 30_000 + b"}"),
            "is nested too deeply",
        ),
    ],
    ids=range(13),
)
def test_body_that_is_no_json_object_is_refused(delivery: bytes, problem: str) -> None:
    assert error_message(delivery) == f"body: {problem}"


def test_repeated_field_is_refused() -> None:
    twice = payment_body(PAYMENT).replace(b'"amount":', b'"amount": 1, "amount":')

    assert error_message(twice) == "amount: is given twice"


@given(
    st.binary(max_size=300)
    | st.recursive(st.none() | st.text(), st.lists).map(lambda x: json.dumps(x).encode())
)
def test_garbage_is_refused_with_field_and_reason(garbage: bytes) -> None:
    assert ": " in error_message(garbage)


@pytest.mark.parametrize(
    ("raw", "version"),
    [
        *[("null", None), ("0", 0), ("2", 2), ("2.0", 2), ('"2"', 2)],
        ("9223372036854775807", DELETED),
        ('"9223372036854775807"', DELETED),
        *[(wrong, "refused") for wrong in ("-1", "1.5", "1e3", "true", '""', '"2', '"2.0"', "[1]")],
        ("9223372036854775808", "refused"),
        ("9" * 25, "refused"),
    ],
)
def test_version_is_a_whole_number(raw: str, version: int | str | None) -> None:
    delivery = payment_body(PAYMENT, version="@").replace(b'"@"', raw.encode())
    try:
        found = read(delivery).version
    except InvalidDelivery:
        assert version == "refused"
    else:
        assert found == version
