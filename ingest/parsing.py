"""Parses deliveries in our own contract.

Other banks' formats are read in ingest/banks/, with the same rules for their fields (ingest/field_rules.py).
"""

import json
from typing import Annotated

import msgspec
from msgspec import Meta

from ingest import field_rules
from ingest.banks.events import CreditEvent
from ingest.field_rules import AMOUNT_CHARS_MAX, DOCUMENT_NUMBER_CHARS_MAX
from ingest.versions import DELETED
from ledger.inn import PATTERN as INN_PATTERN
from ledger.terms import PaymentTerms

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
_VERSION = {
    "anyOf": [
        {"type": "integer", "minimum": 0, "maximum": DELETED},
        {"type": "string", "pattern": "^[0-9]{1,19}$"},
        {"type": "null"},
    ]
}


class BankWebhook(msgspec.Struct):
    """The contract's fields as sent; other fields are ignored, and stored in the raw body."""

    # The annotations are for the OpenAPI document; ingest/field_rules.py validates.

    operation_id: Annotated[
        str,
        Meta(
            description="A UUID, in any usual spelling",
            extra_json_schema={"pattern": rf"^(?:[Uu][Rr][Nn]:[Uu][Uu][Ii][Dd]:)?(?:{_UUID}|\{{{_UUID}\}})$"},
        ),
    ]
    # A number or a string, parsed exactly, never through a float.
    amount: Annotated[msgspec.Raw, Meta(description="Rubles, at most 2 decimals", extra_json_schema=_AMOUNT)]
    payer_inn: Annotated[
        str,
        Meta(
            description="A taxpayer number; its check digits are not verified",
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
    version: Annotated[
        msgspec.Raw,
        Meta(
            description="Optional, of a sender that corrects operations: a higher version replaces a lower "
            f"one, {DELETED} deletes the operation. Each delivery of an operation has it, or none",
            extra_json_schema=_VERSION,
        ),
    ] = msgspec.field(default_factory=msgspec.Raw)


_decoder = msgspec.json.Decoder(BankWebhook)


def parse(body: bytes) -> PaymentTerms:
    """Parse the terms in `body`. Raise InvalidDelivery, whose message is sent to the bank."""
    return read(body).terms


def read(body: bytes) -> CreditEvent:
    """Parse `body`. Raise InvalidDelivery, whose message is sent to the bank."""
    webhook = field_rules.decode_strict(body, _decoder)
    terms = PaymentTerms(
        operation_id=field_rules.operation_id(webhook.operation_id, "operation_id"),
        inn=field_rules.inn(webhook.payer_inn, "payer_inn"),
        amount_kopecks=field_rules.amount_kopecks(bytes(webhook.amount), "amount"),
        document_number=field_rules.document_number(webhook.document_number, "document_number"),
        document_date=field_rules.document_date(webhook.document_date, "document_date"),
    )
    return CreditEvent(terms, version=field_rules.optional_version(bytes(webhook.version), "version"))
