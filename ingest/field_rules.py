"""One rule per field of a payment, for all banks' bodies.

Each function takes the bank's value and the bank's name of the field, which the error message begins with.
It raises InvalidDelivery. docs/architecture.md lists the rules.
"""

import json
import re
from datetime import UTC, datetime
from decimal import Context, Decimal
from typing import TypeVar
from uuid import UUID

import msgspec
from django.conf import settings

from core import iso8601
from ingest.exceptions import InvalidDelivery
from ingest.versions import DELETED
from ledger.inn import is_inn
from ledger.operation_id import parse_operation_id

AMOUNT_CHARS_MAX = 64
AMOUNT_KOPECKS_MAX = 999_999_999_999_999
DOCUMENT_NUMBER_CHARS_MAX = 255
# One day within MySQL's DATETIME range, so that no time zone can move a date out of it.
DOCUMENT_DATE_MIN = datetime(1000, 1, 2, tzinfo=UTC)
DOCUMENT_DATE_MAX = datetime(9999, 12, 30, tzinfo=UTC)
FIELD_CHARS_SHOWN = 64
T = TypeVar("T")

_MISSING = re.compile(r"Object missing required field `(\w+)`(?: - at `\$\.([\w.]+)`)?$")
_WRONG_TYPE = re.compile(r"(Expected .+) - at `\$\.([\w.]+)`$")
_JSON_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?0*[0-9]{1,3})?")
_VERSION = re.compile(rb'([0-9]{1,19})(?:\.0{1,9})?|"([0-9]{1,19})"')
_PLAIN_DECIMAL = re.compile(r"[0-9]+\.?[0-9]*|\.[0-9]+")
_DATE_SHAPE = re.compile(r"[0-9W-]{7,10}(?:[Tt ][0-9:.,]{2,32}(?:[Zz]|[+-][0-9:]{2,8})?)?")


def decode_strict(body: bytes, decoder: "msgspec.json.Decoder[T]") -> T:
    """Decode the JSON object in `body`. Raise InvalidDelivery, also for repeated fields."""
    try:
        text = body.decode("utf-8")
        decoded = decoder.decode(text)
        # msgspec takes the last of two equal fields, and nothing says that the bank means it.
        _repeated_fields.decode(text)
    except UnicodeDecodeError:
        raise InvalidDelivery("body", "must be UTF-8") from None
    except RecursionError:
        raise InvalidDelivery("body", "is nested too deeply") from None
    except msgspec.ValidationError as exc:
        raise _invalid_delivery(str(exc)) from None
    except (msgspec.DecodeError, json.JSONDecodeError):
        raise InvalidDelivery("body", "must be valid JSON") from None
    return decoded


def _refuse_repeated_fields(pairs: list[tuple[str, object]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise InvalidDelivery(name[:FIELD_CHARS_SHOWN], "is given twice")
        seen.add(name)


_repeated_fields = json.JSONDecoder(object_pairs_hook=_refuse_repeated_fields, parse_int=str, parse_float=str)


def _invalid_delivery(message: str) -> InvalidDelivery:
    """Convert msgspec's message, so that the field stands in front."""
    if missing := _MISSING.match(message):
        name, parent = missing[1], missing[2]
        return InvalidDelivery(f"{parent}.{name}" if parent else name, "is missing")
    if mistyped := _WRONG_TYPE.match(message):
        problem = mistyped[1].replace("`", "").replace("Expected str", "must be a string")
        return InvalidDelivery(mistyped[2], problem)
    return InvalidDelivery("body", "must be a JSON object")


def operation_id(text: str, field: str) -> UUID:
    """Parse a UUID in any usual spelling."""
    parsed = parse_operation_id(text)
    if parsed is None:
        raise InvalidDelivery(field, "must be a UUID")
    return parsed


def inn(text: str, field: str) -> str:
    if not is_inn(text):
        raise InvalidDelivery(field, "must be a string of exactly 10 or 12 digits")
    return text


def amount_kopecks(raw: bytes, field: str) -> int:
    """Parse an amount in rubles, a JSON number or string as written: exactly, never through a float."""
    if len(raw) > AMOUNT_CHARS_MAX:
        raise InvalidDelivery(field, f"must not be longer than {AMOUNT_CHARS_MAX} characters")
    if raw.startswith(b'"'):
        digits, pattern = msgspec.json.decode(raw, type=str), _PLAIN_DECIMAL
    else:
        digits, pattern = raw.decode(), _JSON_NUMBER
    if not pattern.fullmatch(digits):
        raise InvalidDelivery(field, "must be a number, or a string of digits with at most one point")
    # The pattern bounds length and exponent, so the arithmetic is cheap and exact.
    kopecks = Decimal(digits).scaleb(2, Context(prec=AMOUNT_CHARS_MAX))
    if kopecks <= 0:
        raise InvalidDelivery(field, "must be greater than zero")
    if kopecks > AMOUNT_KOPECKS_MAX:
        raise InvalidDelivery(field, "must be at most 9999999999999.99")
    if kopecks != kopecks.to_integral_value():
        raise InvalidDelivery(field, "must have at most 2 decimals")
    return int(kopecks)


def optional_version(raw: bytes, field: str) -> int | None:
    return None if raw in {b"", b"null"} else version(raw, field)


def version(raw: bytes, field: str) -> int:
    """Parse a version of an operation: a JSON integer, 2.0 included, or its digits as a string.

    JavaScript would round a number as long as DELETED.
    """
    written = _VERSION.fullmatch(raw)
    if not written or int(written[1] or written[2]) > DELETED:
        raise InvalidDelivery(field, f"must be a whole number from 0 to {DELETED}")
    return int(written[1] or written[2])


def document_number(text: str, field: str) -> str:
    return bounded_text(text, field, chars_max=DOCUMENT_NUMBER_CHARS_MAX)


def bounded_text(text: str, field: str, *, chars_max: int) -> str:
    """Accept 1 to `chars_max` characters that every database can store."""
    if not 1 <= len(text) <= chars_max:
        raise InvalidDelivery(field, f"must have 1 to {chars_max} characters")
    if "\0" in text:
        raise InvalidDelivery(field, "must not contain a NUL character")
    return text


def document_date(text: str, field: str) -> datetime:
    """Parse an ISO 8601 date and time to UTC; without an offset it is in BANK_TIME_ZONE."""
    date = _parse_utc(text)
    if date is None:
        has_shape = _DATE_SHAPE.fullmatch(text)
        raise InvalidDelivery(
            field, "is not a date that exists" if has_shape else "must be an ISO 8601 date and time"
        )
    if not DOCUMENT_DATE_MIN <= date <= DOCUMENT_DATE_MAX:
        raise InvalidDelivery(field, "must lie between the years 1000 and 9999")
    return date


def _parse_utc(text: str) -> datetime | None:
    try:
        date = iso8601.parse(text)
        if date.tzinfo is None:
            date = date.replace(tzinfo=settings.BANK_TIME_ZONE)
        return date.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
