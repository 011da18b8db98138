"""One rule for each field of a payment, whatever it is called in a bank's body.

Each takes what the bank wrote and the bank's name of the field, which a complaint begins with, and raises
InvalidDelivery. The rules stand in docs/architecture.md.
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
from ledger.inn import is_inn
from ledger.operation_id import parse_operation_id

AMOUNT_CHARS_MAX = 64
AMOUNT_KOPECKS_MAX = 999_999_999_999_999
DOCUMENT_NUMBER_CHARS_MAX = 255
# One day inside what MySQL's DATETIME holds, so that no time zone can push a date over the edge.
DOCUMENT_DATE_MIN = datetime(1000, 1, 2, tzinfo=UTC)
DOCUMENT_DATE_MAX = datetime(9999, 12, 30, tzinfo=UTC)
FIELD_CHARS_SHOWN = 64
T = TypeVar("T")

_MISSING = re.compile(r"Object missing required field `(\w+)`(?: - at `\$\.([\w.]+)`)?$")
_WRONG_TYPE = re.compile(r"(Expected .+) - at `\$\.([\w.]+)`$")
_JSON_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?0*[0-9]{1,3})?")
_PLAIN_DECIMAL = re.compile(r"[0-9]+\.?[0-9]*|\.[0-9]+")
_LOOKS_LIKE_A_DATE = re.compile(r"[0-9W-]{7,10}(?:[Tt ][0-9:.,]{2,32}(?:[Zz]|[+-][0-9:]{2,8})?)?")


def decode_strict(body: bytes, decoder: "msgspec.json.Decoder[T]") -> T:
    """The JSON object in `body`, in which no field is given twice."""
    try:
        text = body.decode("utf-8")
        told = decoder.decode(text)
        # msgspec takes the last of two equal fields; which one did the bank mean?
        json.loads(text, object_pairs_hook=_refuse_repeated_fields, parse_int=str, parse_float=str)
    except UnicodeDecodeError:
        raise InvalidDelivery("body", "must be UTF-8") from None
    except RecursionError:
        raise InvalidDelivery("body", "is nested too deeply") from None
    except msgspec.ValidationError as wrong:
        raise _named(str(wrong)) from None
    except (msgspec.DecodeError, json.JSONDecodeError):
        raise InvalidDelivery("body", "must be valid JSON") from None
    return told


def _refuse_repeated_fields(pairs: list[tuple[str, object]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise InvalidDelivery(name[:FIELD_CHARS_SHOWN], "is given twice")
        seen.add(name)


def _named(wrong: str) -> InvalidDelivery:
    """msgspec's message, with the field in front."""
    if missing := _MISSING.match(wrong):
        name, inside = missing[1], missing[2]
        return InvalidDelivery(f"{inside}.{name}" if inside else name, "is missing")
    if mistyped := _WRONG_TYPE.match(wrong):
        return InvalidDelivery(
            mistyped[2], mistyped[1].replace("`", "").replace("Expected str", "must be a string")
        )
    return InvalidDelivery("body", "must be a JSON object")


def operation_id(text: str, field: str) -> UUID:
    """`text` in any usual spelling of a UUID."""
    found = parse_operation_id(text)
    if found is None:
        raise InvalidDelivery(field, "must be a UUID")
    return found


def inn(text: str, field: str) -> str:
    if not is_inn(text):
        raise InvalidDelivery(field, "must be a string of exactly 10 or 12 digits")
    return text


def amount_kopecks(raw: bytes, field: str) -> int:
    """`raw` is a JSON number or string as written: read digit by digit, never through a float."""
    if len(raw) > AMOUNT_CHARS_MAX:
        raise InvalidDelivery(field, f"must not be longer than {AMOUNT_CHARS_MAX} characters")
    if raw.startswith(b'"'):
        digits, shape = msgspec.json.decode(raw, type=str), _PLAIN_DECIMAL
    else:
        digits, shape = raw.decode(), _JSON_NUMBER
    if not shape.fullmatch(digits):
        raise InvalidDelivery(field, "must be a number, or a string of digits with at most one point")
    # The shape bounds length and exponent, so this is small arithmetic, and exact.
    kopecks = Decimal(digits).scaleb(2, Context(prec=AMOUNT_CHARS_MAX))
    if kopecks <= 0:
        raise InvalidDelivery(field, "must be greater than zero")
    if kopecks > AMOUNT_KOPECKS_MAX:
        raise InvalidDelivery(field, "must be at most 9999999999999.99")
    if kopecks != kopecks.to_integral_value():
        raise InvalidDelivery(field, "must have at most 2 decimals")
    return int(kopecks)


def document_number(text: str, field: str) -> str:
    return bounded_text(text, field, chars_max=DOCUMENT_NUMBER_CHARS_MAX)


def bounded_text(text: str, field: str, *, chars_max: int) -> str:
    """Any text of 1 to `chars_max` characters that every database can hold."""
    if not 1 <= len(text) <= chars_max:
        raise InvalidDelivery(field, f"must have 1 to {chars_max} characters")
    if "\0" in text:
        raise InvalidDelivery(field, "must not contain a NUL character")
    return text


def document_date(text: str, field: str) -> datetime:
    """The instant in UTC; without an offset `text` is read in BANK_TIME_ZONE."""
    date = _instant(text)
    if date is None:
        is_close = _LOOKS_LIKE_A_DATE.fullmatch(text)
        wrong = "is not a date that exists" if is_close else "must be an ISO 8601 date and time"
        raise InvalidDelivery(field, wrong)
    if not DOCUMENT_DATE_MIN <= date <= DOCUMENT_DATE_MAX:
        raise InvalidDelivery(field, "must lie between the years 1000 and 9999")
    return date


def _instant(text: str) -> datetime | None:
    """The instant in UTC; None if there is no such day or offset."""
    try:
        date = iso8601.parse(text)
        if date.tzinfo is None:
            date = date.replace(tzinfo=settings.BANK_TIME_ZONE)
        return date.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
