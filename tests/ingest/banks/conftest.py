"""The banks' endpoints, authenticated as by the settings."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from django.test import Client
from pytest_django import Settings

from core.delivery_auth import DeliveryAuth
from worker.applying import apply_batch

TOKEN = "a-token-given-to-t-bank"
Event = dict[str, Any]
Deliver = Callable[[Event], tuple[int, str]]


def load_sample(name: str, **changed: Any) -> Event:
    """Return a sample event with some fields replaced; a dict replaces fields of a nested object."""
    event: Event = json.loads((Path(__file__).parent / "samples" / f"{name}.json").read_text())
    nested = {field: event[field] | value for field, value in changed.items() if isinstance(value, dict)}
    return event | changed | nested


@pytest.fixture(scope="session")
def bank_key() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(autouse=True)
def endpoint_auth(settings: Settings, bank_key: RSAPrivateKey) -> None:
    settings.TOCHKA_CUSTOMER_CODES = ["300123124", "300123123"]
    settings.ENDPOINT_AUTH = {
        "bank": DeliveryAuth(allow_anonymous=True),
        "tochka": DeliveryAuth(public_keys=[bank_key.public_key()]),
        "tbank": DeliveryAuth(bearer=[TOKEN.encode()]),
    }


@pytest.fixture
def from_tochka(bank_key: RSAPrivateKey) -> Deliver:
    def deliver(event: Event) -> tuple[int, str]:
        token = jwt.encode(event, bank_key, algorithm="RS256")
        return _status_and_text(Client().post("/api/webhook/tochka/", token, content_type="text/plain"))

    return deliver


@pytest.fixture
def from_tbank() -> Deliver:
    def deliver(event: Event) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return _status_and_text(
            Client().post("/api/webhook/tbank/", event, content_type="application/json", headers=headers)
        )

    return deliver


def _status_and_text(response: Any) -> tuple[int, str]:
    content = json.loads(response.content)
    return response.status_code, content.get("status") or content["error"]


def apply_received() -> int:
    """Apply received webhooks; return their number."""
    return apply_batch(100)
