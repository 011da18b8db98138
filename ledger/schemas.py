"""Response bodies of the read API; the OpenAPI document is generated from them."""

from decimal import Decimal
from typing import Annotated
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType

from core.http import AwareDatetime

Rubles = Annotated[int | Decimal, Meta(description="Rubles: exact, with two decimals unless it is whole")]


Settled = Annotated[
    bool,
    Meta(description="Whether this answer about the past is final; only in a response to `at` or `to`"),
]


Reverses = Annotated[
    UUID, Meta(description="The operation whose payment this entry takes back; only in a reversal")
]


class Balance(Struct):
    inn: str
    balance: Rubles
    settled: Settled | UnsetType = UNSET


class HistoryEntry(Struct):
    """One change of a balance; the amount of a reversal is negative."""

    amount: Rubles
    created_at: AwareDatetime
    balance_after: Rubles
    seq: int
    operation_id: UUID
    document_number: str
    document_date: AwareDatetime
    reverses: Reverses | UnsetType = UNSET


class History(Struct):
    """Newest first; the `seq` of the last entry is the `before` of the next page."""

    inn: str
    history: list[HistoryEntry]
    settled: Settled | UnsetType = UNSET
