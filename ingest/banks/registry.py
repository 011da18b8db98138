"""The doors: where each bank delivers, and in which words.

/api/webhook/<name>/ is there when the settings have a guard of this name (ENDPOINT_AUTH).
"""

from collections.abc import Callable
from dataclasses import dataclass

from ingest.banks import tbank, tochka
from ingest.banks.events import BankEvent, CreditEvent
from ingest.models import DEFAULT_SOURCE
from ingest.parsing import parse


def read_contract(body: bytes) -> CreditEvent:
    """A delivery in our own contract; raises InvalidDelivery."""
    return CreditEvent(parse(body))


@dataclass(frozen=True)
class BankEndpoint:
    """`read` tells what a verified payload comes to; `acknowledge` answers as the bank wants.

    `read` raises InvalidDelivery, or NotAuthorized where the payload is not meant for us. The name is the source
    of what is taken in. Tochka wants a 200 and T-Bank any 2xx, whatever stands in it, so our own contract's
    answers do for both.
    """

    name: str
    read: Callable[[bytes], BankEvent]


ENDPOINTS = (
    BankEndpoint(DEFAULT_SOURCE, read_contract),
    BankEndpoint(tochka.SOURCE, tochka.read),
    BankEndpoint(tbank.SOURCE, tbank.read),
)
ENDPOINTS_BY_NAME = {endpoint.name: endpoint for endpoint in ENDPOINTS}
