"""T-Bank's webhook «Операция по счету» (oper-feed-operation): which operations are payments into an account.

Sources: https://developer.tbank.ru/docs/intro/webhooks/account-info (a new operation, or a changed one),
https://developer.tbank.ru/docs/products/account-info (Authorization and Transaction, the dates, and that an
operationId may change) and https://developer.tbank.ru/docs/api/get-api-v-1-statement (the fields).
docs/banks.md has the whole mapping, docs/decisions/0017 the reasons for the key.
"""

import json
from datetime import datetime
from uuid import UUID, uuid5

from django.core.exceptions import ImproperlyConfigured

from core.delivery_auth import DeliveryAuth
from ingest import field_rules
from ingest.banks import vocabulary
from ingest.banks.events import (
    BANK_REFERENCE_CHARS_MAX,
    BankEvent,
    BankReference,
    CreditEvent,
    IgnoredEvent,
    UnrecognizedEvent,
)
from ingest.banks.json_fields import JsonObject, parse_json_object
from ingest.exceptions import InvalidDelivery, NotJson
from ledger.operation_id import parse_operation_id
from ledger.terms import PaymentTerms

SOURCE = "tbank"
NAMESPACE = UUID("2903e94d-6036-5c2e-b36e-299064a6345d")  # uuid5(NAMESPACE_URL, "https://www.tbank.ru/")
BOOKED = vocabulary.fold_all(["Transaction"])
NOT_BOOKED = vocabulary.fold_all(["Authorization"])
INCOMING = vocabulary.fold_all(["Credit"])
OUTGOING = vocabulary.fold_all(["Debit"])


def check_tenant_restriction(auth: DeliveryAuth) -> None:
    """Require credentials: the bank's addresses alone are the same for all its customers.

    Raise ImproperlyConfigured.
    """
    if not auth.requires_credentials:
        raise ImproperlyConfigured(
            "TBANK_NETWORKS is set; then TBANK_BASIC_AUTH or TBANK_BEARER_TOKENS must be"
        )


def read(body: bytes) -> BankEvent:
    """Interpret an event. Raise NotJson.

    The payload needs no tenant check: the endpoint requires credentials that we gave the bank.
    """
    try:
        operation = parse_json_object(body)
        operation.require_unique()
        return _ignored(operation) or _credit(operation)
    except NotJson:
        raise
    except InvalidDelivery as exc:
        return UnrecognizedEvent(str(exc))


def _ignored(operation: JsonObject) -> IgnoredEvent | None:
    """Return why the event is no payment to credit; None if it is one. Raise InvalidDelivery if unclear."""
    for name, credited, not_credited, reason in [
        ("operationStatus", BOOKED, NOT_BOOKED, "is not booked"),
        ("typeOfOperation", INCOMING, OUTGOING, "is not credited"),
    ]:
        word = operation.text(name)
        if vocabulary.fold(word) in not_credited:
            return IgnoredEvent(f"{name} {word} {reason}")
        if vocabulary.fold(word) not in credited:
            raise vocabulary.unknown_word(word, name)
    account_currency = operation.text_or_integer("accountCurrencyDigitalCode")
    if not vocabulary.is_rubles(account_currency, "accountCurrencyDigitalCode"):
        return IgnoredEvent(f"currency {account_currency} is not credited")
    currency = operation.text_or_integer("operationCurrencyDigitalCode")
    if not vocabulary.is_rubles(currency, "operationCurrencyDigitalCode"):
        raise InvalidDelivery("operationCurrencyDigitalCode", f"is {currency}, and the account is in rubles")
    return None


def _credit(operation: JsonObject) -> CreditEvent:
    payer = operation.nested("payer")
    account, payer_account = operation.text_or_integer("accountNumber"), payer.text_or_integer("acct")
    number = field_rules.document_number(operation.text_or_integer("documentNumber"), "documentNumber")
    date = field_rules.document_date(operation.text("docDate"), "docDate")
    terms = PaymentTerms(
        operation_id=_operation_id(account, payer_account, number, date),
        inn=payer.inn_or_suspense("inn", account),
        amount_kopecks=operation.kopecks("accountAmount"),
        document_number=number,
        document_date=date,
    )
    bank_id = field_rules.bounded_text(
        operation.text_or_integer("operationId"), "operationId", chars_max=BANK_REFERENCE_CHARS_MAX
    )
    return CreditEvent(terms, BankReference(alias(bank_id), bank_id), accounts=(payer_account, account))


def _operation_id(account: str, payer_account: str, document_number: str, document_date: datetime) -> UUID:
    """Derive our operation id from the fields that identify a payment order and never change.

    Not from operationId, which changes overnight, nor from the amount: after a change it is the same payment.
    """
    order = [account, payer_account, document_number, document_date.isoformat()]
    return uuid5(NAMESPACE, f"payment order {json.dumps(order)}")


def alias(bank_id: str) -> UUID:
    """Return the alias of T-Bank's operationId `bank_id`, the same for all spellings of a UUID."""
    uuid = parse_operation_id(bank_id)
    return uuid5(NAMESPACE, f"operation {bank_id if uuid is None else uuid}")
