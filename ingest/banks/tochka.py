"""Tochka Bank's webhooks: which of them is a payment into an account, and what it says.

After https://developers.tochka.com/docs/tochka-api/opisanie-metodov/vebhuki and its pages for each event.
The body is a JWT, which the door has verified; here comes its payload. docs/banks.md has the whole mapping.
"""

from uuid import UUID, uuid5

import msgspec
from django.conf import settings

from ingest import fields
from ingest.banks.telling import BANK_ID_CHARS_MAX, Credit, Ignored, nobodys
from ingest.exceptions import TurnedAway
from ingest.fields import FIELD_CHARS_SHOWN
from ledger.terms import PaymentTerms

SOURCE = "tochka"
NAMESPACE = UUID("f60be8d2-5601-5723-8aab-c9e125be5f68")  # uuid5(NAMESPACE_URL, "https://tochka.com/")
CREDITED = "incomingPayment"
RUBLES = "RUB"


class Event(msgspec.Struct):
    webhook_type: str = msgspec.field(name="webhookType")


class Side(msgspec.Struct):
    inn: str
    currency: str


class Recipient(msgspec.Struct):
    amount: msgspec.Raw  # a string such as "40.0"
    currency: str


class IncomingPayment(msgspec.Struct):
    payer: Side = msgspec.field(name="SidePayer")
    recipient: Recipient = msgspec.field(name="SideRecipient")
    document_number: str = msgspec.field(name="documentNumber")
    date: str
    payment_id: str = msgspec.field(name="paymentId")
    customer_code: str = msgspec.field(name="customerCode")


_event = msgspec.json.Decoder(Event)
_incoming_payment = msgspec.json.Decoder(IncomingPayment)


def read(payload: bytes) -> Credit | Ignored:
    """What `payload` comes to; raises InvalidDelivery, or TurnedAway from another customer's payment.

    The bank signs for all its customers with one key, so whoever has an account there has its signature
    on payments to himself.
    """
    kind = fields.decoded(payload, _event).webhook_type
    if kind != CREDITED:
        return Ignored(f"webhookType {kind[:FIELD_CHARS_SHOWN]} is not credited")
    payment = fields.decoded(payload, _incoming_payment)
    for currency in (payment.payer.currency, payment.recipient.currency):
        if currency != RUBLES:
            return Ignored(f"currency {currency[:FIELD_CHARS_SHOWN]} is not credited")
    if nobodys(payment.payer.inn):  # so is the documented sample, and a test may be that
        return Ignored("SidePayer.inn names nobody: a test, or a payer without an INN")
    if payment.customer_code not in settings.TOCHKA_CUSTOMER_CODES:
        raise TurnedAway("another customer's payment")
    own_id = fields.words(payment.payment_id, "paymentId", chars_max=BANK_ID_CHARS_MAX)
    return Credit(
        PaymentTerms(
            operation_id=operation_id(own_id),
            inn=fields.inn(payment.payer.inn, "SidePayer.inn"),
            amount_kopecks=fields.amount_kopecks(bytes(payment.recipient.amount), "SideRecipient.amount"),
            document_number=fields.document_number(payment.document_number, "documentNumber"),
            document_date=fields.document_date(payment.date, "date"),
        )
    )


def payment_id(payload: bytes) -> str:
    """What Tochka calls the payment in `payload`; raises InvalidDelivery."""
    return fields.decoded(payload, _incoming_payment).payment_id


def operation_id(payment_id: str) -> UUID:
    """Our operation id of the payment that Tochka, also in its statements, calls `payment_id`."""
    return uuid5(NAMESPACE, payment_id)
