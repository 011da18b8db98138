"""T-Bank's webhook «Операция по счету» (oper-feed-operation): which operations are payments into an account.

After https://developer.tbank.ru/docs/intro/webhooks/account-info (a new operation, or a changed one),
https://developer.tbank.ru/docs/products/account-info (Authorization and Transaction, the dates, and that an
operationId may change) and https://developer.tbank.ru/docs/api/get-api-v-1-statement (the fields).
docs/banks.md has the whole mapping, docs/decisions/0017 the reasons for the key.
"""

import json
from datetime import datetime
from uuid import UUID, uuid5

import msgspec

from ingest import fields
from ingest.banks.telling import BANK_ID_CHARS_MAX, BankId, Credit, Ignored, nobodys
from ingest.fields import FIELD_CHARS_SHOWN
from ledger.operation_id import as_operation_id
from ledger.terms import PaymentTerms

SOURCE = "tbank"
NAMESPACE = UUID("2903e94d-6036-5c2e-b36e-299064a6345d")  # uuid5(NAMESPACE_URL, "https://www.tbank.ru/")
BOOKED = "transaction"
INCOMING = "credit"
RUBLES = "643"  # ISO 4217


class Event(msgspec.Struct, rename="camel"):
    operation_status: str
    type_of_operation: str


class Payer(msgspec.Struct):
    inn: str
    acct: str


class IncomingTransaction(msgspec.Struct, rename="camel"):
    operation_id: str
    account_number: str
    account_amount: msgspec.Raw  # a number or a string
    account_currency_digital_code: str
    operation_currency_digital_code: str
    document_number: str
    doc_date: str
    payer: Payer


_event = msgspec.json.Decoder(Event)
_incoming_transaction = msgspec.json.Decoder(IncomingTransaction)


def read(body: bytes) -> Credit | Ignored:
    """What `body` comes to; raises InvalidDelivery."""
    event = fields.decoded(body, _event)
    # The bank's pages spell these in both cases.
    if event.operation_status.lower() != BOOKED:
        return Ignored(f"operationStatus {event.operation_status[:FIELD_CHARS_SHOWN]} is not booked")
    if event.type_of_operation.lower() != INCOMING:
        return Ignored(f"typeOfOperation {event.type_of_operation[:FIELD_CHARS_SHOWN]} is not credited")
    told = fields.decoded(body, _incoming_transaction)
    for currency in (told.operation_currency_digital_code, told.account_currency_digital_code):
        if currency != RUBLES:
            return Ignored(f"currency {currency[:FIELD_CHARS_SHOWN]} is not credited")
    if nobodys(told.payer.inn):
        return Ignored("payer.inn names nobody: a test, or a payer without an INN")
    number = fields.document_number(told.document_number, "documentNumber")
    date = fields.document_date(told.doc_date, "docDate")
    terms = PaymentTerms(
        operation_id=_operation_id(told.account_number, told.payer.acct, number, date),
        inn=fields.inn(told.payer.inn, "payer.inn"),
        amount_kopecks=fields.amount_kopecks(bytes(told.account_amount), "accountAmount"),
        document_number=number,
        document_date=date,
    )
    bank_id = fields.words(told.operation_id, "operationId", chars_max=BANK_ID_CHARS_MAX)
    return Credit(terms, BankId(alias(bank_id), bank_id))


def _operation_id(account: str, payer_account: str, document_number: str, document_date: datetime) -> UUID:
    """Made of what names a payment order, and of nothing that the bank may change afterwards.

    Not operationId, which changes overnight, and not the amount: it stays one payment when they change.
    """
    order = [account, payer_account, document_number, document_date.isoformat()]
    return uuid5(NAMESPACE, f"payment order {json.dumps(order)}")


def alias(bank_id: str) -> UUID:
    """What T-Bank's operationId `bank_id`, in any spelling of a UUID, is found by."""
    uuid = as_operation_id(bank_id)
    return uuid5(NAMESPACE, f"operation {bank_id if uuid is None else uuid}")
