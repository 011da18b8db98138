"""From the bytes of our own contract to PaymentTerms; here the outside world's words end.

Other banks' bodies are read in ingest/banks/, by the same rules for their fields, which are ingest/fields.py.
"""

import msgspec

from ingest import fields
from ledger.terms import PaymentTerms


class BankWebhook(msgspec.Struct):
    """The fields as the bank sends them; others are ignored here and stay in the raw body."""

    operation_id: str
    amount: msgspec.Raw  # a number or a string
    payer_inn: str
    document_number: str
    document_date: str


_decoder = msgspec.json.Decoder(BankWebhook)


def parse(body: bytes) -> PaymentTerms:
    """The terms in `body`; raises InvalidDelivery, whose message the bank may read."""
    webhook = fields.decoded(body, _decoder)
    return PaymentTerms(
        operation_id=fields.operation_id(webhook.operation_id, "operation_id"),
        inn=fields.inn(webhook.payer_inn, "payer_inn"),
        amount_kopecks=fields.amount_kopecks(bytes(webhook.amount), "amount"),
        document_number=fields.document_number(webhook.document_number, "document_number"),
        document_date=fields.document_date(webhook.document_date, "document_date"),
    )
