"""From the bank's bytes to PaymentTerms; here the outside world's words end.

Rules of the fields stand in docs/architecture.md, with the answers of the contract.
"""

import json
import re
from datetime import UTC, datetime
from decimal import Context, Decimal
from typing import Annotated
from uuid import UUID

import msgspec
from django.conf import settings
from msgspec import Meta

from ingest.exceptions import InvalidDelivery
from ledger.inn import PATTERN as INN_PATTERN
from ledger.inn import is_inn
from ledger.operation_id import as_operation_id
from ledger.terms import PaymentTerms

AMOUNT_CHARS_MAX = 64
AMOUNT_KOPECKS_MAX = 999_999_999_999_999
DOCUMENT_NUMBER_CHARS_MAX = 255
# One day inside what MySQL's DATETIME holds, so that no time zone can push a date over the edge.
DOCUMENT_DATE_MIN = datetime(1000, 1, 2, tzinfo=UTC)
DOCUMENT_DATE_MAX = datetime(9999, 12, 30, tzinfo=UTC)


_HEX = "[0-9A-Fa-f]"
_UUID = f"(?:{_HEX}{{32}}|{_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}})"
_AMOUNT = {
    "anyOf": [
        json.loads('{"type":"number","exclusiveMinimum":0,"maximum":9999999999999.99,"multipleOf":0.01}'),
        {
            "type": "string",
            "pattern": r"^0*(?:[1-9][0-9]{0,12}(?:\.[0-9]{0,2}0*)?|\.0[1-9]0*|\.[1-9][0-9]?0*)$",
            "maxLength": AMOUNT_CHARS_MAX - 2,  # without its quotes
        },
    ]
}


class BankWebhook(msgspec.Struct):
    """The fields as the bank sends them; others are ignored here and stay in the raw body."""

    # What is said about each is for the API's document; the functions below judge it.

    operation_id: Annotated[
        str,
        Meta(
            description="A UUID, in any usual spelling",
            extra_json_schema={"pattern": rf"^(?:[Uu][Rr][Nn]:[Uu][Uu][Ii][Dd]:)?(?:{_UUID}|\{{{_UUID}\}})$"},
        ),
    ]
    # A number or a string: read digit by digit, never through a float.
    amount: Annotated[msgspec.Raw, Meta(description="Rubles, at most 2 decimals", extra_json_schema=_AMOUNT)]
    payer_inn: Annotated[
        str,
        Meta(
            description="A taxpayer number; wrong check digits refuse nothing",
            extra_json_schema={"pattern": INN_PATTERN},
        ),
    ]
    document_number: Annotated[
        str,
        Meta(
            extra_json_schema={
                "minLength": 1,
                "maxLength": DOCUMENT_NUMBER_CHARS_MAX,
                "pattern": r"^[^\u0000]*$",
            }
        ),
    ]
    document_date: Annotated[
        str,
        Meta(
            description="ISO 8601, years 1000 to 9999; without an offset it is in the bank's time zone",
            extra_json_schema={"format": "date-time", "pattern": "^[1-9][0-9]{3}-"},
        ),
    ]


_decode = msgspec.json.Decoder(BankWebhook).decode
_MISSING = re.compile(r"Object missing required field `(\w+)`$")
_WRONG_TYPE = re.compile(r"(Expected .+) - at `\$\.(\w+)`$")
_JSON_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?0*[0-9]{1,3})?")
_PLAIN_DECIMAL = re.compile(r"[0-9]+\.?[0-9]*|\.[0-9]+")
# ISO 8601 dates and times; datetime.fromisoformat alone would take any character between the two.
_ISO_8601 = re.compile(r"[0-9W-]{7,10}(?:[Tt ][0-9:.,]{2,32}(?:[Zz]|[+-][0-9:]{2,8})?)?")


def parse(body: bytes) -> PaymentTerms:
    """The terms in `body`; raises InvalidDelivery, whose message the bank may read."""
    webhook = _decoded(body)
    return PaymentTerms(
        operation_id=parse_operation_id(webhook.operation_id),
        inn=_inn(webhook.payer_inn),
        amount_kopecks=_amount_kopecks(bytes(webhook.amount)),
        document_number=_document_number(webhook.document_number),
        document_date=_document_date(webhook.document_date),
    )


def parse_operation_id(text: str) -> UUID:
    """`text` in any usual spelling of a UUID; raises InvalidDelivery."""
    operation_id = as_operation_id(text)
    if operation_id is None:
        raise InvalidDelivery("operation_id", "must be a UUID")
    return operation_id


def _decoded(body: bytes) -> BankWebhook:
    try:
        text = body.decode("utf-8")
        webhook = _decode(text)
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
    return webhook


def _refuse_repeated_fields(pairs: list[tuple[str, object]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise InvalidDelivery(name[:64], "is given twice")
        seen.add(name)


def _named(wrong: str) -> InvalidDelivery:
    """msgspec's message, with the field in front."""
    if missing := _MISSING.match(wrong):
        return InvalidDelivery(missing[1], "is missing")
    if mistyped := _WRONG_TYPE.match(wrong):
        return InvalidDelivery(
            mistyped[2], mistyped[1].replace("`", "").replace("Expected str", "must be a string")
        )
    return InvalidDelivery("body", "must be a JSON object")


def _inn(text: str) -> str:
    if not is_inn(text):
        raise InvalidDelivery("payer_inn", "must be a string of exactly 10 or 12 digits")
    return text


def _amount_kopecks(raw: bytes) -> int:
    if len(raw) > AMOUNT_CHARS_MAX:
        raise InvalidDelivery("amount", f"must not be longer than {AMOUNT_CHARS_MAX} characters")
    if raw.startswith(b'"'):
        digits, shape = msgspec.json.decode(raw, type=str), _PLAIN_DECIMAL
    else:
        digits, shape = raw.decode(), _JSON_NUMBER
    if not shape.fullmatch(digits):
        raise InvalidDelivery("amount", "must be a number, or a string of digits with at most one point")
    # The shape bounds length and exponent, so this is small arithmetic, and exact.
    kopecks = Decimal(digits).scaleb(2, Context(prec=AMOUNT_CHARS_MAX))
    if kopecks <= 0:
        raise InvalidDelivery("amount", "must be greater than zero")
    if kopecks > AMOUNT_KOPECKS_MAX:
        raise InvalidDelivery("amount", "must be at most 9999999999999.99")
    if kopecks != kopecks.to_integral_value():
        raise InvalidDelivery("amount", "must have at most 2 decimals")
    return int(kopecks)


def _document_number(text: str) -> str:
    if not 1 <= len(text) <= DOCUMENT_NUMBER_CHARS_MAX:
        raise InvalidDelivery("document_number", f"must have 1 to {DOCUMENT_NUMBER_CHARS_MAX} characters")
    if "\0" in text:
        raise InvalidDelivery("document_number", "must not contain a NUL character")
    return text


def _document_date(text: str) -> datetime:
    if not _ISO_8601.fullmatch(text):
        raise InvalidDelivery("document_date", "must be an ISO 8601 date and time")
    try:
        date = datetime.fromisoformat(text.upper())
        if date.tzinfo is None:
            date = date.replace(tzinfo=settings.BANK_TIME_ZONE)
        date = date.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidDelivery("document_date", "is not a date that exists") from None
    if not DOCUMENT_DATE_MIN <= date <= DOCUMENT_DATE_MAX:
        raise InvalidDelivery("document_date", "must lie between the years 1000 and 9999")
    return date
