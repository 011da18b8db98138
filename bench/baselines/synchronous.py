"""Credit the payment in the request: no queue, and the bank waits for the lock and the commit."""

from functools import partial

from bench.baselines.orm_posting import credit, run_in_transaction
from bench.baselines.webhook_view import make_view
from ledger.terms import PaymentTerms


def post(terms: PaymentTerms, body: bytes) -> None:
    run_in_transaction(terms.inn, partial(credit, terms))


bank_webhook = make_view(post)
