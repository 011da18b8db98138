"""T-Bank's webhook «Операция по счету» (oper-feed-operation): which operations are payments into an account.

After https://developer.tbank.ru/docs/intro/webhooks/account-info (a new operation, or a changed one),
https://developer.tbank.ru/docs/products/account-info (Authorization and Transaction, the dates, and that an
operationId may change) and https://developer.tbank.ru/docs/api/get-api-v-1-statement (the fields).
docs/banks.md has the whole mapping, docs/decisions/0017 the reasons for the key.
"""

import json
from datetime import datetime
from uuid import UUID, uuid5

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


def read(body: bytes) -> BankEvent:
    """What `body` comes to; raises NotJson.

    That it is meant for us, the credentials have shown that this endpoint demands: the bank has them from us.
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
    """Why it is known to be no payment to credit; None if it is one. Raises InvalidDelivery for the rest."""
    for name, credited, not_credited, wrong in [
        ("operationStatus", BOOKED, NOT_BOOKED, "is not booked"),
        ("typeOfOperation", INCOMING, OUTGOING, "is not credited"),
    ]:
        word = operation.text(name)
        if vocabulary.fold(word) in not_credited:
            return IgnoredEvent(f"{name} {word} {wrong}")
        if vocabulary.fold(word) not in credited:
            raise vocabulary.unknown_word(word, name)
    account_currency = operation.written("accountCurrencyDigitalCode")
    if not vocabulary.is_rubles(account_currency, "accountCurrencyDigitalCode"):
        return IgnoredEvent(f"currency {account_currency} is not credited")
    currency = operation.written("operationCurrencyDigitalCode")
    if not vocabulary.is_rubles(currency, "operationCurrencyDigitalCode"):
        raise InvalidDelivery("operationCurrencyDigitalCode", f"is {currency}, and the account is in rubles")
    return None


def _credit(operation: JsonObject) -> CreditEvent:
    payer = operation.part("payer")
    number = field_rules.document_number(operation.written("documentNumber"), "documentNumber")
    date = field_rules.document_date(operation.text("docDate"), "docDate")
    terms = PaymentTerms(
        operation_id=_operation_id(operation.written("accountNumber"), payer.written("acct"), number, date),
        inn=payer.inn("inn"),
        amount_kopecks=operation.kopecks("accountAmount"),
        document_number=number,
        document_date=date,
    )
    bank_reference = field_rules.bounded_text(
        operation.written("operationId"), "operationId", chars_max=BANK_REFERENCE_CHARS_MAX
    )
    return CreditEvent(terms, BankReference(alias(bank_reference), bank_reference))


def _operation_id(account: str, payer_account: str, document_number: str, document_date: datetime) -> UUID:
    """Made of what names a payment order, and of nothing that the bank may change afterwards.

    Not operationId, which changes overnight, and not the amount: it stays one payment when they change.
    """
    order = [account, payer_account, document_number, document_date.isoformat()]
    return uuid5(NAMESPACE, f"payment order {json.dumps(order)}")


def alias(bank_reference: str) -> UUID:
    """What T-Bank's operationId `bank_reference`, in any spelling of a UUID, is found by."""
    uuid = parse_operation_id(bank_reference)
    return uuid5(NAMESPACE, f"operation {bank_reference if uuid is None else uuid}")
