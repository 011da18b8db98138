"""T-Bank's webhook «Операция по счету» (oper-feed-operation): which operations are payments into an account.

After https://developer.tbank.ru/docs/intro/webhooks/account-info (a new operation, or a changed one),
https://developer.tbank.ru/docs/products/account-info (Authorization and Transaction, the dates, and that an
operationId may change) and https://developer.tbank.ru/docs/api/get-api-v-1-statement (the fields).
docs/banks.md has the whole mapping, docs/decisions/0017 the reasons for the key.
"""

import json
from datetime import datetime
from uuid import UUID, uuid5

from ingest import fields
from ingest.banks import words
from ingest.banks.reading import Facts, facts_in
from ingest.banks.telling import BANK_ID_CHARS_MAX, BankId, Credit, Ignored, Meaning, Unrecognized
from ingest.exceptions import InvalidDelivery, NotJson
from ledger.operation_id import as_operation_id
from ledger.terms import PaymentTerms

SOURCE = "tbank"
NAMESPACE = UUID("2903e94d-6036-5c2e-b36e-299064a6345d")  # uuid5(NAMESPACE_URL, "https://www.tbank.ru/")
BOOKED = words.known(["Transaction"])
NOT_BOOKED = words.known(["Authorization"])
INCOMING = words.known(["Credit"])
OUTGOING = words.known(["Debit"])


def read(body: bytes) -> Meaning:
    """What `body` comes to; raises NotJson.

    That it is meant for us, the credentials have shown that this endpoint demands: the bank has them from us.
    """
    try:
        operation = facts_in(body)
        operation.require_unique()
        return _ignored(operation) or _credit(operation)
    except NotJson:
        raise
    except InvalidDelivery as exc:
        return Unrecognized(str(exc))


def _ignored(operation: Facts) -> Ignored | None:
    """Why it is known to be no payment to credit; None if it is one. Raises InvalidDelivery for the rest."""
    for name, credited, not_credited, wrong in [
        ("operationStatus", BOOKED, NOT_BOOKED, "is not booked"),
        ("typeOfOperation", INCOMING, OUTGOING, "is not credited"),
    ]:
        word = operation.text(name)
        if words.folded(word) in not_credited:
            return Ignored(f"{name} {word} {wrong}")
        if words.folded(word) not in credited:
            raise words.unknown(word, name)
    account_currency = operation.written("accountCurrencyDigitalCode")
    if not words.is_rubles(account_currency, "accountCurrencyDigitalCode"):
        return Ignored(f"currency {account_currency} is not credited")
    currency = operation.written("operationCurrencyDigitalCode")
    if not words.is_rubles(currency, "operationCurrencyDigitalCode"):
        raise InvalidDelivery("operationCurrencyDigitalCode", f"is {currency}, and the account is in rubles")
    return None


def _credit(operation: Facts) -> Credit:
    payer = operation.part("payer")
    number = fields.document_number(operation.written("documentNumber"), "documentNumber")
    date = fields.document_date(operation.text("docDate"), "docDate")
    terms = PaymentTerms(
        operation_id=_operation_id(operation.written("accountNumber"), payer.written("acct"), number, date),
        inn=payer.inn("inn"),
        amount_kopecks=operation.kopecks("accountAmount"),
        document_number=number,
        document_date=date,
    )
    bank_id = fields.words(operation.written("operationId"), "operationId", chars_max=BANK_ID_CHARS_MAX)
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
