"""Tochka Bank's webhooks: which of them is a payment into an account, and what it says.

After https://developers.tochka.com/docs/tochka-api/opisanie-metodov/vebhuki and its pages for each event.
The body is a JWT, which the door has verified; here comes its payload. docs/banks.md has the whole mapping.
"""

from uuid import UUID, uuid5

from django.conf import settings

from ingest import fields
from ingest.banks import words
from ingest.banks.reading import Facts, facts_in
from ingest.banks.telling import BANK_ID_CHARS_MAX, Credit, Ignored, Meaning, Unrecognized
from ingest.exceptions import InvalidDelivery, TurnedAway
from ledger.terms import PaymentTerms

SOURCE = "tochka"
NAMESPACE = UUID("f60be8d2-5601-5723-8aab-c9e125be5f68")  # uuid5(NAMESPACE_URL, "https://tochka.com/")
CREDITED = words.known(["incomingPayment"])
OUTGOING = words.known(["outgoingPayment"])
# Money that came in, without its payer's INN.
WITHOUT_PAYER = words.known(["incomingSbpPayment", "incomingSbpB2BPayment", "acquiringInternetPayment"])
# The status of an acquiringInternetPayment of which the buyer's money is only held.
HELD = words.known(["AUTHORIZED"])
# What the payloads of the bank's pages have for an id. Its tests of an address may be those.
SAMPLES = {
    "paymentId": ["0000000000"],
    "qrcId": ["AS10006DPRTEFPFS9HJ9SQSDSVRHJD3L"],
    "operationId": ["A22001100263820100000533E625FCB3", "beeac8a4-6047-3f38-8922-a664e6b5c43b"],
}


def read(payload: bytes) -> Meaning:
    """What `payload` comes to; raises TurnedAway where nothing in it says that it is meant for us.

    The bank signs for all its customers with one key, so each of them has its signature on events of their
    own. Every event of the bank has a customer code, which is checked before anything else.
    """
    try:
        event = facts_in(payload)
        is_ours = event.written("customerCode") in settings.TOCHKA_CUSTOMER_CODES
    except InvalidDelivery:
        raise TurnedAway("no customer code") from None
    if not is_ours or "customerCode" in event.repeated:
        raise TurnedAway("another customer's event")
    try:
        event.require_unique()
        return _ignored(event) or _credit(event)
    except InvalidDelivery as exc:
        return Unrecognized(str(exc))


def _ignored(event: Facts) -> Ignored | None:
    """Why it is known to be no payment to credit; None if it is one. Raises InvalidDelivery for the rest."""
    kind = event.text("webhookType")
    word = words.folded(kind)
    if word in OUTGOING:
        return Ignored(f"webhookType {kind} is not credited")
    if word in WITHOUT_PAYER:
        return _ignored_without_payer(event, kind)
    if word not in CREDITED:
        raise words.unknown(kind, "webhookType")
    if _is_sample(event) and not event.part("SidePayer").text("inn").strip("0"):
        return Ignored("the sample of the bank's documentation: a test")
    currency = event.part("SideRecipient").written("currency")
    if not words.is_rubles(currency, "SideRecipient.currency"):
        return Ignored(f"currency {currency} is not credited")
    currency = event.part("SidePayer").written("currency")
    if not words.is_rubles(currency, "SidePayer.currency"):
        raise InvalidDelivery("SidePayer.currency", f"is {currency}, and the recipient's are rubles")
    return None


def _ignored_without_payer(event: Facts, kind: str) -> Ignored:
    if _is_sample(event):
        return Ignored("the sample of the bank's documentation: a test")
    if "status" in event.fields and words.folded(event.text("status")) in HELD:
        return Ignored(f"{kind}: the buyer's money is only held")
    raise InvalidDelivery("webhookType", f"{kind} names no payer's INN, so there is no balance to credit")


def _is_sample(event: Facts) -> bool:
    return any(event.fields.get(name) in ids for name, ids in SAMPLES.items())


def _credit(event: Facts) -> Credit:
    own_id = fields.words(event.written("paymentId"), "paymentId", chars_max=BANK_ID_CHARS_MAX)
    return Credit(
        PaymentTerms(
            operation_id=operation_id(own_id),
            inn=event.part("SidePayer").inn("inn"),
            amount_kopecks=event.part("SideRecipient").kopecks("amount"),
            document_number=fields.document_number(event.written("documentNumber"), "documentNumber"),
            document_date=fields.document_date(event.text("date"), "date"),
        )
    )


def payment_id(payload: bytes) -> str:
    """What Tochka calls the payment in `payload`; raises InvalidDelivery."""
    return facts_in(payload).written("paymentId")


def operation_id(payment_id: str) -> UUID:
    """Our operation id of the payment that Tochka, also in its statements, calls `payment_id`."""
    return uuid5(NAMESPACE, payment_id)
