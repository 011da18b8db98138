"""Tochka Bank's webhooks: which events are payments into an account, and their terms.

Source: https://developers.tochka.com/docs/tochka-api/opisanie-metodov/vebhuki and its pages for each event.
The body is a JWT; this module reads its verified payload. docs/banks.md has the whole mapping.
"""

from uuid import UUID, uuid5

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from core.delivery_auth import DeliveryAuth
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
# Incoming money without its payer's INN.
WITHOUT_PAYER = vocabulary.fold_all(
    ["incomingSbpPayment", "incomingSbpB2BPayment", "acquiringInternetPayment"]
)
# The status of an acquiringInternetPayment that only reserves the buyer's money.
AUTHORIZED = vocabulary.fold_all(["AUTHORIZED"])
# Ids of the samples in the bank's documentation, which its test of a webhook URL may send.
SAMPLE_IDS = {
    "paymentId": ["0000000000"],
    "qrcId": ["AS10006DPRTEFPFS9HJ9SQSDSVRHJD3L"],
    "operationId": ["A22001100263820100000533E625FCB3", "beeac8a4-6047-3f38-8922-a664e6b5c43b"],
}


def check_tenant_restriction(_: DeliveryAuth) -> None:
    """Require the customer codes: the bank signs all its customers' events with one key.

    Raise ImproperlyConfigured.
    """
    if not settings.TOCHKA_CUSTOMER_CODES:
        raise ImproperlyConfigured("TOCHKA_PUBLIC_KEY_FILE is set; then TOCHKA_CUSTOMER_CODES must be")


def read(payload: bytes) -> BankEvent:
    """Interpret an event. Raise NotAuthorized unless it has one of our customer codes.

    The customer code is in every event, and is checked first: each customer of the bank can obtain its
    signature on events of their own.
    """
    try:
        event = parse_json_object(payload)
        is_ours = event.text_or_integer("customerCode") in settings.TOCHKA_CUSTOMER_CODES
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
    """Return why the event is no payment to credit; None if it is one. Raise InvalidDelivery if unclear."""
    webhook_type = event.text("webhookType")
    word = vocabulary.fold(webhook_type)
    if word in OUTGOING:
        return IgnoredEvent(f"webhookType {webhook_type} is not credited")
    if word in WITHOUT_PAYER:
        return _ignored_without_payer(event, webhook_type)
    if word not in CREDITED:
        raise vocabulary.unknown_word(webhook_type, "webhookType")
    if _is_sample(event) and not event.nested("SidePayer").text("inn").strip("0"):
        return IgnoredEvent("the sample of the bank's documentation: a test")
    currency = event.nested("SideRecipient").text_or_integer("currency")
    if not vocabulary.is_rubles(currency, "SideRecipient.currency"):
        return IgnoredEvent(f"currency {currency} is not credited")
    currency = event.nested("SidePayer").text_or_integer("currency")
    if not vocabulary.is_rubles(currency, "SidePayer.currency"):
        raise InvalidDelivery("SidePayer.currency", f"is {currency}, and the recipient's are rubles")
    return None


def _ignored_without_payer(event: JsonObject, webhook_type: str) -> IgnoredEvent:
    if _is_sample(event):
        return IgnoredEvent("the sample of the bank's documentation: a test")
    if "status" in event.fields and vocabulary.fold(event.text("status")) in AUTHORIZED:
        return IgnoredEvent(f"{webhook_type}: the buyer's money is only reserved")
    raise InvalidDelivery(
        "webhookType", f"{webhook_type} names no payer's INN, so there is no balance to credit"
    )


def _is_sample(event: JsonObject) -> bool:
    return any(event.fields.get(name) in ids for name, ids in SAMPLE_IDS.items())


def _credit(event: JsonObject) -> CreditEvent:
    payment_id = field_rules.bounded_text(
        event.text_or_integer("paymentId"), "paymentId", chars_max=BANK_REFERENCE_CHARS_MAX
    )
    payer, recipient = event.nested("SidePayer"), event.nested("SideRecipient")
    account, payer_account = recipient.fields.get("account"), payer.fields.get("account")
    return CreditEvent(
        PaymentTerms(
            operation_id=operation_id(payment_id),
            inn=payer.inn_or_suspense("inn", account),
            amount_kopecks=recipient.kopecks("amount"),
            document_number=field_rules.document_number(
                event.text_or_integer("documentNumber"), "documentNumber"
            ),
            document_date=field_rules.document_date(event.text("date"), "date"),
        ),
        accounts=(str(payer_account or ""), str(account or "")),
    )


def payment_id(payload: bytes) -> str:
    """Return Tochka's id of the payment in `payload`. Raise InvalidDelivery."""
    return parse_json_object(payload).text_or_integer("paymentId")


def operation_id(payment_id: str) -> UUID:
    """Return our operation id of Tochka's `payment_id`, which its statements show, too."""
    return uuid5(NAMESPACE, payment_id)
