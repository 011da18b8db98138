"""Parse and respond, and store nothing: the upper limit for any design that stores something."""

from bench.baselines.webhook_view import make_view
from ledger.terms import PaymentTerms


def discard(terms: PaymentTerms, body: bytes) -> None:
    pass


bank_webhook = make_view(discard)
