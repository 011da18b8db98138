"""What a bank's delivery comes to, before anything is stored."""

from dataclasses import dataclass
from uuid import UUID

from ledger.terms import PaymentTerms

BANK_REFERENCE_CHARS_MAX = 64


@dataclass(frozen=True, slots=True)
class BankReference:
    """The bank's own id of an operation, where our operation id can't be made of it alone."""

    alias: UUID  # made of it, in the bank's namespace
    text: str  # as people read it, at most BANK_REFERENCE_CHARS_MAX characters


@dataclass(frozen=True, slots=True)
class CreditEvent:
    """A payment into an account, under these terms."""

    terms: PaymentTerms
    bank_reference: BankReference | None = None


@dataclass(frozen=True, slots=True)
class IgnoredEvent:
    """Truly the bank's word, and known to be no payment to credit: answered 200, and kept for a while."""

    reason: str


@dataclass(frozen=True, slots=True)
class UnrecognizedEvent:
    """Truly the bank's word, and possibly money: answered 200, and kept until a person has closed it."""

    reason: str


BankEvent = CreditEvent | IgnoredEvent | UnrecognizedEvent
