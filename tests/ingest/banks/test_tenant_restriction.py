"""A bank's proof says that the bank speaks; something of ours must say that it speaks of our accounts."""

from ipaddress import ip_network

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from django.core.exceptions import ImproperlyConfigured

from core.delivery_auth import DeliveryAuth
from ingest.authentication import check_tenant_restriction

NOBODY = DeliveryAuth()
THE_BANKS_ADDRESS = ip_network("212.233.80.7")


def test_tochkas_key_without_our_customers_is_refused_at_start(bank_key: RSAPrivateKey) -> None:
    with pytest.raises(ImproperlyConfigured, match="TOCHKA_CUSTOMER_CODES"):
        check_tenant_restriction(DeliveryAuth(public_keys=[bank_key.public_key()]), [], NOBODY)


def test_tbanks_addresses_without_credentials_are_refused_at_start() -> None:
    with pytest.raises(ImproperlyConfigured, match="TBANK_BEARER_TOKENS"):
        check_tenant_restriction(NOBODY, [], DeliveryAuth(networks=[THE_BANKS_ADDRESS]))


def test_both_with_what_we_said_or_neither(bank_key: RSAPrivateKey) -> None:
    tbank = DeliveryAuth(networks=[THE_BANKS_ADDRESS], bearer=[b"a-token-of-ours-at-t-bank"])
    check_tenant_restriction(DeliveryAuth(public_keys=[bank_key.public_key()]), ["300123123"], tbank)
    check_tenant_restriction(NOBODY, [], NOBODY)
