"""The webhook endpoints: /api/webhook/<name>/, one for each bank.

An endpoint is enabled when the settings have authentication of its name (ENDPOINT_AUTH).
"""

from collections.abc import Callable
from dataclasses import dataclass

from django.conf import settings

from core.delivery_auth import DeliveryAuth
from ingest.banks import tbank, tochka
from ingest.banks.events import BankEvent
from ingest.models import DEFAULT_SOURCE
from ingest.parsing import read
from ingest.signatures import unverified_payload


def no_tenant_restriction(_: DeliveryAuth) -> None:
    """Our own contract's credentials belong to one sender, who delivers only to us."""


@dataclass(frozen=True)
class BankEndpoint:
    """`name` is the source of what is stored.

    `read` interprets a verified payload; it raises InvalidDelivery, or NotAuthorized if the payload is not
    meant for us. `check_tenant_restriction` raises ImproperlyConfigured if the settings would let in events
    of the bank's other customers. All endpoints share our contract's responses: Tochka requires a 200 and
    T-Bank any 2xx, with any body.
    """

    name: str
    read: Callable[[bytes], BankEvent]
    check_tenant_restriction: Callable[[DeliveryAuth], None] = no_tenant_restriction


ENDPOINTS = (
    BankEndpoint(DEFAULT_SOURCE, read),
    BankEndpoint(tochka.SOURCE, tochka.read, tochka.check_tenant_restriction),
    BankEndpoint(tbank.SOURCE, tbank.read, tbank.check_tenant_restriction),
)
ENDPOINTS_BY_NAME = {endpoint.name: endpoint for endpoint in ENDPOINTS}


def read_stored(source: str, body: "bytes | memoryview[int]") -> BankEvent:
    """Return what a stored body means to today's adapter of its source.

    Raise KeyError for a source without an endpoint, and what BankEndpoint.read raises.
    """
    return ENDPOINTS_BY_NAME[source].read(unverified_payload(bytes(body)))


def check_tenant_restrictions() -> None:
    """Check all enabled endpoints.

    Banks sign every customer's webhooks with one key, and send them from the same addresses, so without a
    tenant restriction another customer could get its own payments credited here. Raise ImproperlyConfigured.
    """
    for name, auth in settings.ENDPOINT_AUTH.items():
        ENDPOINTS_BY_NAME[name].check_tenant_restriction(auth)
