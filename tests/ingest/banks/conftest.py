"""Banks at their doors, with guards as the settings would make them."""

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
from ingest import doorbell
from worker.applying import apply_batch

TOKEN = "a-token-that-we-gave-to-t-bank"
Told = dict[str, Any]
Deliver = Callable[[Told], tuple[int, str]]


def load_sample(name: str, **changed: Any) -> Told:
    """A sample body, with these fields replaced; `payer={…}` and the like replace inside."""
    told: Told = json.loads((Path(__file__).parent / "samples" / f"{name}.json").read_text())
    inside = {field: told[field] | value for field, value in changed.items() if isinstance(value, dict)}
    return told | changed | inside


@pytest.fixture(scope="session")
def bank_key() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(autouse=True)
def guards(settings: Settings, monkeypatch: pytest.MonkeyPatch, bank_key: RSAPrivateKey) -> None:
    monkeypatch.setattr(doorbell, "ring", lambda: None)
    settings.TOCHKA_CUSTOMER_CODES = ["300123124", "300123123"]
    settings.ENDPOINT_AUTH = {
        "bank": DeliveryAuth(allow_anonymous=True),
        "tochka": DeliveryAuth(public_keys=[bank_key.public_key()]),
        "tbank": DeliveryAuth(bearer=[TOKEN.encode()]),
    }


@pytest.fixture
def from_tochka(bank_key: RSAPrivateKey) -> Deliver:
    def deliver(told: Told) -> tuple[int, str]:
        token = jwt.encode(told, bank_key, algorithm="RS256")
        return _answer(Client().post("/api/webhook/tochka/", token, content_type="text/plain"))

    return deliver


@pytest.fixture
def from_tbank() -> Deliver:
    def deliver(told: Told) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return _answer(
            Client().post("/api/webhook/tbank/", told, content_type="application/json", headers=headers)
        )

    return deliver


def _answer(response: Any) -> tuple[int, str]:
    said = json.loads(response.content)
    return response.status_code, said.get("status") or said["error"]


def apply_received() -> int:
    """Let a worker apply what is received; returns how much that was."""
    return apply_batch(100)
