"""The floor: parse and answer, and keep nothing. No design that stores anything can be faster."""

from bench.peers.answering import door
from ledger.terms import PaymentTerms


def forget(terms: PaymentTerms, body: bytes) -> None:
    pass


bank_webhook = door(forget)
