"""Tochka Bank's webhooks: which of them is a payment into an account, and what it says.

After https://developers.tochka.com/docs/tochka-api/opisanie-metodov/vebhuki and its pages for each event.
The body is a JWT, which the door has verified; here comes its payload. docs/banks.md has the whole mapping.
"""

from uuid import UUID, uuid5

from django.conf import settings

from ingest import field_rules
from ingest.banks import vocabulary
from ingest.banks.events import (
    BANK_REFERENCE_CHARS_MAX,
    BankEvent,
    CreditEvent,
    IgnoredEvent,
    UnrecognizedEvent,
)
from ingest.banks.json_fields import JsonObject, parse_json_object
from ingest.exceptions import InvalidDelivery, NotAuthorized
from ledger.terms import PaymentTerms

SOURCE = "tochka"
NAMESPACE = UUID("f60be8d2-5601-5723-8aab-c9e125be5f68")  # uuid5(NAMESPACE_URL, "https://tochka.com/")
CREDITED = vocabulary.fold_all(["incomingPayment"])
OUTGOING = vocabulary.fold_all(["outgoingPayment"])
# Money that came in, without its payer's INN.
WITHOUT_PAYER = vocabulary.fold_all(
    ["incomingSbpPayment", "incomingSbpB2BPayment", "acquiringInternetPayment"]
)
# The status of an acquiringInternetPayment of which the buyer's money is only held.
HELD = vocabulary.fold_all(["AUTHORIZED"])
# What the payloads of the bank's pages have for an id. Its tests of an address may be those.
SAMPLES = {
    "paymentId": ["0000000000"],
    "qrcId": ["AS10006DPRTEFPFS9HJ9SQSDSVRHJD3L"],
    "operationId": ["A22001100263820100000533E625FCB3", "beeac8a4-6047-3f38-8922-a664e6b5c43b"],
}


def read(payload: bytes) -> BankEvent:
    """What `payload` comes to; raises NotAuthorized where nothing in it says that it is meant for us.

    The bank signs for all its customers with one key, so each of them has its signature on events of their
    own. Every event of the bank has a customer code, which is checked before anything else.
    """
    try:
        event = parse_json_object(payload)
        is_ours = event.written("customerCode") in settings.TOCHKA_CUSTOMER_CODES
    except InvalidDelivery:
        raise NotAuthorized("no customer code") from None
    if not is_ours or "customerCode" in event.repeated:
        raise NotAuthorized("another customer's event")
    try:
        event.require_unique()
        return _ignored(event) or _credit(event)
    except InvalidDelivery as exc:
        return UnrecognizedEvent(str(exc))


def _ignored(event: JsonObject) -> IgnoredEvent | None:
    """Why it is known to be no payment to credit; None if it is one. Raises InvalidDelivery for the rest."""
    kind = event.text("webhookType")
    word = vocabulary.fold(kind)
    if word in OUTGOING:
        return IgnoredEvent(f"webhookType {kind} is not credited")
    if word in WITHOUT_PAYER:
        return _ignored_without_payer(event, kind)
    if word not in CREDITED:
        raise vocabulary.unknown_word(kind, "webhookType")
    if _is_sample(event) and not event.part("SidePayer").text("inn").strip("0"):
        return IgnoredEvent("the sample of the bank's documentation: a test")
    currency = event.part("SideRecipient").written("currency")
    if not vocabulary.is_rubles(currency, "SideRecipient.currency"):
        return IgnoredEvent(f"currency {currency} is not credited")
    currency = event.part("SidePayer").written("currency")
    if not vocabulary.is_rubles(currency, "SidePayer.currency"):
        raise InvalidDelivery("SidePayer.currency", f"is {currency}, and the recipient's are rubles")
    return None


def _ignored_without_payer(event: JsonObject, kind: str) -> IgnoredEvent:
    if _is_sample(event):
        return IgnoredEvent("the sample of the bank's documentation: a test")
    if "status" in event.fields and vocabulary.fold(event.text("status")) in HELD:
        return IgnoredEvent(f"{kind}: the buyer's money is only held")
    raise InvalidDelivery("webhookType", f"{kind} names no payer's INN, so there is no balance to credit")


def _is_sample(event: JsonObject) -> bool:
    return any(event.fields.get(name) in ids for name, ids in SAMPLES.items())


def _credit(event: JsonObject) -> CreditEvent:
    own_id = field_rules.bounded_text(
        event.written("paymentId"), "paymentId", chars_max=BANK_REFERENCE_CHARS_MAX
    )
    return CreditEvent(
        PaymentTerms(
            operation_id=operation_id(own_id),
            inn=event.part("SidePayer").inn("inn"),
            amount_kopecks=event.part("SideRecipient").kopecks("amount"),
            document_number=field_rules.document_number(event.written("documentNumber"), "documentNumber"),
            document_date=field_rules.document_date(event.text("date"), "date"),
        )
    )


def payment_id(payload: bytes) -> str:
    """What Tochka calls the payment in `payload`; raises InvalidDelivery."""
    return parse_json_object(payload).written("paymentId")


def operation_id(payment_id: str) -> UUID:
    """Our operation id of the payment that Tochka, also in its statements, calls `payment_id`."""
    return uuid5(NAMESPACE, payment_id)
