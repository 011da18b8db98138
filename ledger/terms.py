"""The terms of a payment as one comparable value."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID, uuid5

_NAMESPACE_REPLACEMENT = UUID("0d9c2c1b-58f4-4b8e-8a53-9c9d0a4b7e62")


@dataclass(frozen=True, slots=True)
class PaymentTerms:
    """The terms of one operation. Two deliveries of an operation agree if their terms are equal."""

    operation_id: UUID
    inn: str
    amount_kopecks: int
    document_number: str
    document_date: datetime  # aware, compared as an instant

    def in_place_of(self, replaced: UUID) -> "PaymentTerms":
        """Return these terms under the operation id that replaces `replaced` by them."""
        date = self.document_date.astimezone(UTC).isoformat()
        text = f"{replaced} {self.inn} {self.amount_kopecks} {date} {self.document_number}"
        return replace(self, operation_id=uuid5(_NAMESPACE_REPLACEMENT, text))
