"""The doors: where each bank delivers, and in which words.

/api/webhook/<name>/ is there when the settings have a guard of this name (WEBHOOK_GUARDS).
"""

from collections.abc import Callable
from dataclasses import dataclass

from django.http import HttpResponse

from api.answers import answer
from ingest.answers import Taken
from ingest.banks import tbank, tochka
from ingest.banks.telling import Credit, Meaning
from ingest.inbox import Stored
from ingest.models import BANK
from ingest.parsing import parse


def read(body: bytes) -> Credit:
    """A delivery in our own contract; raises InvalidDelivery."""
    return Credit(parse(body))


def acknowledge(stored: Stored) -> HttpResponse:
    """The answer of our own contract."""
    return answer(Taken("success" if stored is Stored.NEW else "already processed"))


@dataclass(frozen=True)
class Door:
    """`read` tells what a verified payload comes to; `acknowledge` answers as the bank wants.

    `read` raises InvalidDelivery, or TurnedAway where the payload is not meant for us. The name is the source
    of what is taken in. Tochka wants a 200 and T-Bank any 2xx, whatever stands in it, so our own contract's
    answers do for both.
    """

    name: str
    read: Callable[[bytes], Meaning]
    acknowledge: Callable[[Stored], HttpResponse] = acknowledge


DOORS = (Door(BANK, read), Door(tochka.SOURCE, tochka.read), Door(tbank.SOURCE, tbank.read))
DOORS_BY_NAME = {door.name: door for door in DOORS}
