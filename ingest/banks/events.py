"""What a bank's delivery means, before anything is stored."""

from dataclasses import dataclass
from uuid import UUID

from ledger.terms import PaymentTerms

BANK_REFERENCE_CHARS_MAX = 64


@dataclass(frozen=True, slots=True)
class BankReference:
    """The bank's own id of an operation, for banks whose id alone doesn't determine our operation id."""

    alias: UUID  # derived from `text` in the bank's namespace
    text: str  # as displayed, at most BANK_REFERENCE_CHARS_MAX characters


@dataclass(frozen=True, slots=True)
class CreditEvent:
    """A payment into an account, or a version of one, which may delete it (ingest/versions.py)."""

    terms: PaymentTerms
    bank_reference: BankReference | None = None
    version: int | None = None
    accounts: tuple[str, str] = ("", "")  # the payer's and ours, each empty if unknown

    @property
    def is_plain(self) -> bool:
        """Return whether our operation id alone tells a duplicate."""
        return self.bank_reference is None and self.version is None


@dataclass(frozen=True, slots=True)
class IgnoredEvent:
    """Authentic and known to be no payment to credit: answered 200, recorded until retention deletes it."""

    reason: str


@dataclass(frozen=True, slots=True)
class UnrecognizedEvent:
    """Authentic and possibly money: answered 200, recorded until an operator closes it."""

    reason: str


BankEvent = CreditEvent | IgnoredEvent | UnrecognizedEvent
