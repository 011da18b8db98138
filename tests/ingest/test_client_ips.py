"""The client IP of stored deliveries."""

from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from ingest.models import ConflictingDelivery, DeliveryRecord, DuplicateDelivery, RejectedDelivery, Webhook
from tests.admin_client import admin_url, superuser_client
from tests.factories import payment_body, terms

pytestmark = pytest.mark.django_db
FIRST, SECOND, PROXY = "192.0.2.1", "2001:db8::2", "198.51.100.7"


def deliver(delivery: bytes, address: str, **extra: Any) -> int:
    there = Client(REMOTE_ADDR=address)
    return there.post("/api/webhook/bank/", delivery, content_type="application/json", **extra).status_code


def addresses(model: type[Webhook] | type[DeliveryRecord]) -> list[str]:
    return list(model._default_manager.order_by("id").values_list("client_ip", flat=True))


def test_every_delivery_is_stored_with_its_client_ip() -> None:
    payment = terms()
    deliver(payment_body(payment), FIRST)
    deliver(payment_body(payment), SECOND)
    deliver(payment_body(payment, amount="7"), PROXY)
    deliver(b"{}", SECOND)

    assert addresses(Webhook) == [FIRST]
    assert addresses(DuplicateDelivery) == [SECOND]
    assert addresses(ConflictingDelivery) == [PROXY]
    assert addresses(RejectedDelivery) == [SECOND]
    there = admin_url(Webhook, "change", Webhook.objects.get().pk)
    content = superuser_client().get(there).content.decode()
    for address in (FIRST, SECOND, PROXY):
        assert f"from {address}" in content


def test_client_ip_behind_a_proxy_is_the_forwarded_one(settings: Settings) -> None:
    settings.TRUSTED_PROXIES = 1
    deliver(payment_body(terms()), PROXY, headers={"X-Forwarded-For": f"10.0.0.1, ::ffff:{FIRST}"})
    assert addresses(Webhook) == [FIRST]


@pytest.mark.parametrize(
    ("peer", "stored"),
    [
        ("", ""),  # a Unix socket
        ("unknown", ""),
        ("fe80::1%" + "x" * 100, "fe80::1"),
        ("2001:0db8:1111:2222:3333:4444:5555:6666", "2001:db8:1111:2222:3333:4444:5555:6666"),
    ],
)
def test_delivery_from_an_unusual_peer_is_stored(peer: str, stored: str) -> None:
    assert deliver(payment_body(terms()), peer) == 200
    assert addresses(Webhook) == [stored]
