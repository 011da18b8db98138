"""Every delivery that is kept says where it came from."""

from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from ingest import doorbell
from ingest.models import ConflictingDelivery, DeliveryRecord, DuplicateDelivery, RejectedDelivery, Webhook
from tests.admin_client import admin_url, superuser_client
from tests.factories import payment_body, terms

pytestmark = pytest.mark.django_db
FIRST, SECOND, PROXY = "192.0.2.1", "2001:db8::2", "198.51.100.7"


@pytest.fixture(autouse=True)
def silent_bell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorbell, "ring", lambda: None)


def deliver(delivery: bytes, address: str, **extra: Any) -> int:
    there = Client(REMOTE_ADDR=address)
    return there.post("/api/webhook/bank/", delivery, content_type="application/json", **extra).status_code


def addresses(model: type[Webhook] | type[DeliveryRecord]) -> list[str]:
    return list(model._default_manager.order_by("id").values_list("client_ip", flat=True))


def test_the_first_delivery_and_all_after_it_say_where_they_came_from() -> None:
    told = terms()
    deliver(payment_body(told), FIRST)
    deliver(payment_body(told), SECOND)
    deliver(payment_body(told, amount="7"), PROXY)
    deliver(b"{}", SECOND)

    assert addresses(Webhook) == [FIRST]
    assert addresses(DuplicateDelivery) == [SECOND]
    assert addresses(ConflictingDelivery) == [PROXY]
    assert addresses(RejectedDelivery) == [SECOND]
    there = admin_url(Webhook, "change", Webhook.objects.get().pk)
    content = superuser_client().get(there).content.decode()
    for address in (FIRST, SECOND, PROXY):
        assert f"from {address}" in content


def test_behind_a_proxy_it_is_the_address_that_the_proxy_saw(settings: Settings) -> None:
    settings.TRUSTED_PROXIES = 1
    deliver(payment_body(terms()), PROXY, headers={"X-Forwarded-For": f"10.0.0.1, ::ffff:{FIRST}"})
    assert addresses(Webhook) == [FIRST]


@pytest.mark.parametrize(
    ("peer", "kept"),
    [
        ("", ""),  # a Unix socket
        ("unknown", ""),
        ("fe80::1%" + "x" * 100, "fe80::1"),
        ("2001:0db8:1111:2222:3333:4444:5555:6666", "2001:db8:1111:2222:3333:4444:5555:6666"),
    ],
)
def test_whatever_the_peer_is_called_the_delivery_is_stored(peer: str, kept: str) -> None:
    assert deliver(payment_body(terms()), peer) == 200
    assert addresses(Webhook) == [kept]
