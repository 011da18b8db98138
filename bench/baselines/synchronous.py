"""The balance changes in the request: nothing to queue, and the bank waits for the lock and the commit."""

from functools import partial

from bench.baselines.orm_posting import credit, in_one_transaction
from bench.baselines.webhook_view import endpoint
from ledger.terms import PaymentTerms


def post(terms: PaymentTerms, body: bytes) -> None:
    in_one_transaction(terms.inn, partial(credit, terms))


bank_webhook = endpoint(post)
