"""The terms of a payment as one comparable value."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True)
class PaymentTerms:
    """The terms of one operation. Two deliveries of an operation agree if their terms are equal."""

    operation_id: UUID
    inn: str
    amount_kopecks: int
    document_number: str
    document_date: datetime  # aware, compared as an instant
