"""The floor: parse and answer, and keep nothing. No design that stores anything can be faster."""

from bench.baselines.webhook_view import endpoint
from ledger.terms import PaymentTerms


def forget(terms: PaymentTerms, body: bytes) -> None:
    pass


bank_webhook = endpoint(forget)
