"""The doors: where each bank delivers, and in which words.

/api/webhook/<name>/ is there when the settings have a guard of this name (WEBHOOK_GUARDS).
"""

from collections.abc import Callable
from dataclasses import dataclass

from django.http import HttpResponse

from api.answers import answer
from ingest.answers import Taken
from ingest.inbox import Stored
from ingest.parsing import parse
from ledger.terms import PaymentTerms


def acknowledge(stored: Stored) -> HttpResponse:
    """The answer of our own contract."""
    return answer(Taken("success" if stored is Stored.NEW else "already processed"))


@dataclass(frozen=True)
class Door:
    """`parse` makes terms of a payload or raises InvalidDelivery; `acknowledge` answers as its bank wants."""

    name: str
    parse: Callable[[bytes], PaymentTerms]
    acknowledge: Callable[[Stored], HttpResponse] = acknowledge


DOORS = (Door("bank", parse),)
