"""Banks sign every customer's webhooks with one key: without a tenant restriction no process may start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from django.core.exceptions import ImproperlyConfigured
from pytest_django import Settings

from core.delivery_auth import DeliveryAuth, parse_network
from ingest.banks.registry import check_tenant_restrictions
from tests.ingest.test_signatures import BANK, pem

PUBLIC_KEY: RSAPublicKey = BANK.public_key()
BANK_NETWORK = parse_network("212.233.80.7")


def test_tochka_key_without_customer_codes_is_refused(settings: Settings) -> None:
    settings.ENDPOINT_AUTH = {"tochka": DeliveryAuth(public_keys=[PUBLIC_KEY])}
    settings.TOCHKA_CUSTOMER_CODES = []
    with pytest.raises(ImproperlyConfigured, match="TOCHKA_CUSTOMER_CODES"):
        check_tenant_restrictions()


def test_tbank_networks_without_credentials_are_refused(settings: Settings) -> None:
    settings.ENDPOINT_AUTH = {"tbank": DeliveryAuth(networks=[BANK_NETWORK])}
    with pytest.raises(ImproperlyConfigured, match="TBANK_BEARER_TOKENS"):
        check_tenant_restrictions()


def test_restricted_or_disabled_endpoints_are_accepted(settings: Settings) -> None:
    settings.ENDPOINT_AUTH = {
        "tochka": DeliveryAuth(public_keys=[PUBLIC_KEY]),
        "tbank": DeliveryAuth(networks=[BANK_NETWORK], bearer=[b"a-token-given-to-t-bank"]),
    }
    settings.TOCHKA_CUSTOMER_CODES = ["300123123"]
    check_tenant_restrictions()
    settings.ENDPOINT_AUTH = {"bank": DeliveryAuth(allow_anonymous=True)}
    settings.TOCHKA_CUSTOMER_CODES = []
    check_tenant_restrictions()


@pytest.mark.process
@pytest.mark.parametrize(
    "command",
    [
        ["manage.py", "check"],
        ["-c", "import config.wsgi"],
        ["-m", "celery", "--quiet", "-A", "worker", "worker"],
        pytest.param(["-m", "celery", "--quiet", "-A", "worker", "beat"], marks=pytest.mark.long),
    ],
    ids=lambda command: command[-1],
)
def test_no_process_starts_without_tenant_restriction(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "bank.pem").write_bytes(pem(PUBLIC_KEY))
    environ = os.environ | {"TOCHKA_PUBLIC_KEY_FILE": str(tmp_path / "bank.pem"), "TOCHKA_CUSTOMER_CODES": ""}

    process = subprocess.run(
        [sys.executable, *command], env=environ, capture_output=True, text=True, timeout=60, check=False
    )

    assert process.returncode != 0
    assert process.stderr == (
        "Prihod can't start: TOCHKA_PUBLIC_KEY_FILE is set; then TOCHKA_CUSTOMER_CODES must be\n"
    )
