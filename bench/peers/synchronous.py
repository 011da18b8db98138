"""The balance changes in the request: nothing to queue, and the bank waits for the lock and the commit."""

from functools import partial

from bench.peers.answering import door
from bench.peers.crediting import credit, in_one_transaction
from ledger.terms import PaymentTerms


def post(terms: PaymentTerms, body: bytes) -> None:
    in_one_transaction(terms.inn, partial(credit, terms))


bank_webhook = door(post)
