"""Authentication of deliveries: what is accepted, what is denied, and what is disclosed and logged."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import Client
from pytest_django import Settings

from core import log_throttle
from core.delivery_auth import (
    DeliveryAuth,
    endpoint_auth,
    parse_basic_credentials,
    parse_network,
    parse_secret,
)
from core.log_throttle import LogThrottle
from ingest import authentication
from ingest.checks import check_webhook_auth
from ingest.models import RejectedDelivery, Webhook
from ingest.signatures import hex_signature, signature
from tests.factories import payment_body, terms
from tests.ingest.test_signatures import BANK, STRANGER, token
from tests.markers import sqlite_run_only

pytestmark = sqlite_run_only

PATH = "/api/webhook/bank/"
OLD, NEW, FOREIGN = b"o" * 32, b"n" * 32, b"f" * 32
PASSWORD = "long-enough-a-password"
SUCCESS = {"status": "success"}
REFUSED = {"error": "not authorized"}


@pytest.fixture(autouse=True)
def fresh_throttle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "throttle", LogThrottle())


@pytest.fixture
def configure_auth(settings: Settings) -> Callable[..., None]:
    def configure(**known: Any) -> None:
        settings.ENDPOINT_AUTH = {"bank": DeliveryAuth(**known)}

    return configure


def deliver(delivery: bytes | None = None, *, headers: dict[str, str] | None = None, **environ: str) -> Any:
    """Return status and JSON of a delivery, valid by default."""
    sent = payment_body(terms()) if delivery is None else delivery
    response = Client().post(PATH, sent, "application/json", headers=headers, **environ)  # type: ignore[arg-type]
    if response.status_code == 401:
        assert response["WWW-Authenticate"].startswith("Basic realm=")
    return response.status_code, json.loads(response.content)


def signed(delivery: bytes, *keys: bytes, age: int = 0, **changed: str) -> dict[str, str]:
    """Return Standard Webhooks headers, signed with each key `age` seconds ago; `changed` after signing."""
    at = str(int(time.time()) - age)
    signatures = " ".join(signature(key, "msg_1", at, delivery).decode() for key in keys)
    fields = {"webhook_id": "msg_1", "webhook_timestamp": at, "webhook_signature": signatures, **changed}
    return {name.replace("_", "-"): value for name, value in fields.items()}


def assert_denied(*response: Any) -> None:
    """Assert a 401 that discloses no reason, and that nothing was stored."""
    assert response == (401, REFUSED)
    assert not Webhook.objects.exists()
    assert not RejectedDelivery.objects.exists()


# Standard Webhooks


@pytest.mark.django_db
@pytest.mark.parametrize("keys", [[OLD], [NEW], [FOREIGN, NEW], [OLD, NEW]])
def test_delivery_signed_with_a_known_secret_is_accepted(
    configure_auth: Callable[..., None], keys: list[bytes]
) -> None:
    configure_auth(secrets=[OLD, NEW])
    delivery = payment_body(terms())
    assert deliver(delivery, headers=signed(delivery, *keys)) == (200, SUCCESS)


@pytest.mark.django_db
@pytest.mark.parametrize("age", [-301, 301, 86_400])
def test_signature_outside_the_tolerance_is_denied(configure_auth: Callable[..., None], age: int) -> None:
    configure_auth(secrets=[OLD])
    delivery = payment_body(terms())
    # One second more than allowed, and one for the time that the test takes.
    assert_denied(*deliver(delivery, headers=signed(delivery, OLD, age=age - 2 if age < 0 else age)))


@pytest.mark.django_db
@pytest.mark.parametrize("age", [-298, 0, 298])
def test_signature_within_the_tolerance_is_accepted(configure_auth: Callable[..., None], age: int) -> None:
    configure_auth(secrets=[OLD])
    delivery = payment_body(terms())
    assert deliver(delivery, headers=signed(delivery, OLD, age=age)) == (200, SUCCESS)


RIGHT = signature(OLD, "msg_1", str(int(time.time())), b"x").decode()


@pytest.mark.django_db
@pytest.mark.parametrize(
    "changed",
    [
        {"webhook_id": "msg_2"},
        {"webhook_id": ""},
        {"webhook_timestamp": str(int(time.time()) + 60)},
        {"webhook_timestamp": ""},
        {"webhook_timestamp": "now"},
        {"webhook_timestamp": "-1"},
        {"webhook_timestamp": "9" * 400},
        {"webhook_timestamp": "١٦١٤٢٦٥٣٣٠"},
        {"webhook_signature": ""},
        {"webhook_signature": "v1,"},
        {"webhook_signature": RIGHT},
        {"webhook_signature": "v1,\xe9"},
        {"webhook_signature": "v1, " * 1000},
    ],
)
def test_header_changed_after_signing_is_denied(
    configure_auth: Callable[..., None], changed: dict[str, str]
) -> None:
    configure_auth(secrets=[OLD])
    delivery = payment_body(terms())
    assert_denied(*deliver(delivery, headers=signed(delivery, OLD, **changed)))


@pytest.mark.django_db
def test_signed_id_with_a_full_stop_is_denied(configure_auth: Callable[..., None]) -> None:
    """The standard says so: the signed text could be split into id, timestamp and body in two ways."""
    configure_auth(secrets=[OLD])
    delivery, at = payment_body(terms()), str(int(time.time()))
    shown = signature(OLD, "msg.1", at, delivery).decode()
    headers = signed(delivery, webhook_id="msg.1", webhook_timestamp=at, webhook_signature=shown)
    assert_denied(*deliver(delivery, headers=headers))


@pytest.mark.django_db
def test_signature_of_another_version_is_denied(configure_auth: Callable[..., None]) -> None:
    configure_auth(secrets=[OLD])
    delivery = payment_body(terms())
    headers = signed(delivery, OLD)
    headers["webhook-signature"] = headers["webhook-signature"].replace("v1,", "v1a,")
    assert_denied(*deliver(delivery, headers=headers))


@pytest.mark.django_db
@pytest.mark.parametrize("kept", [5, 20, 46])
def test_signature_prefix_is_denied(configure_auth: Callable[..., None], kept: int) -> None:
    configure_auth(secrets=[OLD])
    delivery = payment_body(terms())
    headers = signed(delivery, OLD)
    headers["webhook-signature"] = headers["webhook-signature"][:kept]
    assert_denied(*deliver(delivery, headers=headers))


@pytest.mark.django_db
def test_changed_body_is_denied(configure_auth: Callable[..., None]) -> None:
    configure_auth(secrets=[OLD])
    delivery = payment_body(terms())
    assert_denied(*deliver(delivery + b" ", headers=signed(delivery, OLD)))


@pytest.mark.django_db
def test_unsigned_garbage_is_denied_before_parsing(configure_auth: Callable[..., None]) -> None:
    configure_auth(secrets=[OLD])
    assert_denied(*deliver(b"[" * 10_000))


@pytest.mark.django_db
def test_signed_invalid_body_is_answered_400(configure_auth: Callable[..., None]) -> None:
    configure_auth(secrets=[OLD])
    assert deliver(b"{}", headers=signed(b"{}", OLD))[0] == 400
    assert RejectedDelivery.objects.count() == 1


# Hex signatures, credentials, tokens


@pytest.mark.django_db
@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_hex_signature_is_accepted_in_any_case(
    configure_auth: Callable[..., None], case: Callable[[str], str]
) -> None:
    configure_auth(x_signature_secrets=[OLD])
    delivery = payment_body(terms())
    shown = case(hex_signature(OLD, delivery).decode())
    assert_denied(*deliver(delivery, headers={"X-Signature": shown[:-1]}))
    assert_denied(*deliver(delivery, headers={"X-Signature": hex_signature(FOREIGN, delivery).decode()}))
    assert deliver(delivery, headers={"X-Signature": shown}) == (200, SUCCESS)


BASIC = parse_basic_credentials(f"банк:{PASSWORD}").decode()


@pytest.mark.django_db
@pytest.mark.parametrize("shown", [f"Basic {BASIC}", f"basic {BASIC}", f"Bearer {PASSWORD}"])
def test_known_credentials_are_accepted(configure_auth: Callable[..., None], shown: str) -> None:
    configure_auth(basic=[BASIC.encode()], bearer=[parse_secret(PASSWORD)])
    assert deliver(headers={"Authorization": shown}) == (200, SUCCESS)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "shown",
    [
        *(
            "",
            "Basic",
            "Basic ",
            "Bearer",
            "Bearer ",
            f"Basic {PASSWORD}",
            f"Bearer {BASIC}",
            f"Basic {BASIC}=",
        ),
        *(f"Bearer {PASSWORD[:-1]}", f"Bearer {PASSWORD}x", PASSWORD, f"Digest {BASIC}", "Bearer \xe9"),
    ],
)
def test_unknown_credentials_are_denied(configure_auth: Callable[..., None], shown: str) -> None:
    configure_auth(basic=[BASIC.encode()], bearer=[parse_secret(PASSWORD)])
    assert_denied(*deliver(headers={"Authorization": shown}))


@pytest.mark.django_db
def test_unconfigured_kinds_of_credentials_are_denied(configure_auth: Callable[..., None]) -> None:
    configure_auth(basic=[BASIC.encode()])
    delivery = payment_body(terms())
    assert_denied(*deliver(delivery, headers={"Authorization": f"Bearer {PASSWORD}"}))
    assert_denied(*deliver(delivery, headers=signed(delivery, OLD)))
    assert_denied(*deliver(delivery, headers=signed(delivery, b"")))
    assert_denied(*deliver(delivery, headers={"X-Signature": hex_signature(b"", delivery).decode()}))


@pytest.mark.django_db
@pytest.mark.parametrize("behind", [b"", b"\n"])
def test_token_is_stored_whole_and_its_payload_parsed(
    configure_auth: Callable[..., None], behind: bytes
) -> None:
    configure_auth(public_keys=[BANK.public_key()])
    payment = terms()
    delivery = token(payment_body(payment)) + behind
    assert deliver(delivery) == (200, SUCCESS)
    webhook = Webhook.objects.get()
    assert webhook.terms == payment
    assert bytes(webhook.body) == delivery


@pytest.mark.django_db
def test_token_by_another_key_is_denied(configure_auth: Callable[..., None]) -> None:
    configure_auth(public_keys=[BANK.public_key()])
    assert_denied(*deliver(token(payment_body(terms()), key=STRANGER)))
    assert_denied(*deliver())


@pytest.mark.django_db
def test_token_and_credentials_are_both_required_if_both_are_set(configure_auth: Callable[..., None]) -> None:
    configure_auth(public_keys=[BANK.public_key()], bearer=[parse_secret(PASSWORD)])
    authorized = {"Authorization": f"Bearer {PASSWORD}"}
    assert_denied(*deliver(token(payment_body(terms()))))
    assert_denied(*deliver(headers=authorized))
    assert deliver(token(payment_body(terms())), headers=authorized) == (200, SUCCESS)


# Networks


@pytest.mark.django_db
@pytest.mark.parametrize("peer", ["192.0.2.7", "::ffff:192.0.2.7", "2001:db8::1", "198.51.100.200"])
def test_known_network_is_accepted(configure_auth: Callable[..., None], peer: str) -> None:
    configure_auth(
        networks=[parse_network(one) for one in ("192.0.2.7", "2001:db8::/32", "::ffff:198.51.100.0/120")]
    )
    assert deliver(REMOTE_ADDR=peer) == (200, SUCCESS)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "peer", ["192.0.2.8", "::ffff:192.0.2.8", "2001:db9::1", "", "unix:", "192.0.2.7:80"]
)
def test_unknown_network_is_denied(configure_auth: Callable[..., None], peer: str) -> None:
    configure_auth(networks=[parse_network("192.0.2.7"), parse_network("2001:db8::/32")])
    assert_denied(*deliver(REMOTE_ADDR=peer))


BANK_IP, STRANGER_IP, PROXY_IP = "192.0.2.7", "203.0.113.9", "10.0.0.1"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("proxies", "forwarded", "status"),
    [
        (0, BANK_IP, 401),  # no proxy is trusted
        (1, BANK_IP, 200),
        (1, f"{STRANGER_IP}, {BANK_IP}", 200),
        (1, f"{BANK_IP}, {STRANGER_IP}", 401),  # the left one is forged by the client
        (2, f"{BANK_IP}, {PROXY_IP}", 200),
        (2, f"{BANK_IP},{STRANGER_IP},{PROXY_IP}", 401),
        (2, BANK_IP, 503),  # fewer proxies than trusted
        (1, "", 503),
        (1, f"{BANK_IP},", 503),
        (1, "unknown", 503),
    ],
)
def test_forwarded_addresses_are_counted_from_the_right(
    configure_auth: Callable[..., None], settings: Settings, proxies: int, forwarded: str, status: int
) -> None:
    configure_auth(networks=[parse_network(BANK_IP)])
    settings.TRUSTED_PROXIES = proxies
    assert deliver(REMOTE_ADDR=PROXY_IP, headers={"X-Forwarded-For": forwarded})[0] == status


@pytest.mark.django_db
def test_known_network_does_not_replace_a_signature(configure_auth: Callable[..., None]) -> None:
    configure_auth(networks=[parse_network(BANK_IP)], secrets=[OLD])
    delivery = payment_body(terms())
    assert_denied(*deliver(delivery, REMOTE_ADDR=BANK_IP))
    assert_denied(*deliver(delivery, headers=signed(delivery, OLD), REMOTE_ADDR=STRANGER_IP))
    assert deliver(delivery, headers=signed(delivery, OLD), REMOTE_ADDR=BANK_IP) == (200, SUCCESS)


# Endpoints


@pytest.mark.django_db
def test_endpoint_without_credentials_is_answered_503(settings: Settings) -> None:
    settings.ENDPOINT_AUTH = {}
    response = Client(enforce_csrf_checks=True).post(PATH)
    assert (response.status_code, response["Retry-After"]) == (503, "5")


@pytest.mark.django_db
def test_empty_authentication_denies_everything(configure_auth: Callable[..., None]) -> None:
    configure_auth()
    assert_denied(*deliver())


@pytest.mark.django_db
def test_method_and_length_are_checked_before_credentials(configure_auth: Callable[..., None]) -> None:
    configure_auth(secrets=[OLD])
    assert Client().get(PATH).status_code == 405
    assert deliver(CONTENT_LENGTH="")[0] == 411
    assert deliver(b" " * 65_537)[0] == 413


def test_denied_deliveries_are_logged_with_a_rate_limit(
    configure_auth: Callable[..., None], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure_auth(bearer=[parse_secret(PASSWORD)])
    caplog.set_level(logging.INFO)
    clock = SimpleNamespace(monotonic=lambda: clock.now, time=time.time, now=1000.0)
    monkeypatch.setattr(log_throttle, "time", clock)

    for _ in range(50):
        deliver(b"s3cret body", headers={"Authorization": "Bearer s3cret token"})
    clock.now += log_throttle.EVERY_SECONDS
    deliver(b"s3cret body", headers={"Authorization": "Bearer s3cret token"})

    logged = [record.getMessage() for record in caplog.records]
    assert len(logged) == 2
    assert "'suppressed': 49" in logged[1]
    assert "no known credentials" in logged[0]
    assert "127.0.0.1" in logged[0]
    assert "s3cret" not in "".join(logged)
    assert PASSWORD not in "".join(logged)


# The settings

KNOWN = DeliveryAuth(secrets=[OLD])


def test_production_without_credentials_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="no webhook authentication is configured"):
        endpoint_auth("", debug=False, bank=DeliveryAuth())


def test_webhook_auth_none_contradicts_credentials() -> None:
    with pytest.raises(ImproperlyConfigured, match="contradicts"):
        endpoint_auth("none", debug=False, bank=KNOWN)


def test_webhook_auth_accepts_only_none() -> None:
    with pytest.raises(ImproperlyConfigured, match="malformed") as raised:
        endpoint_auth("s3cret", debug=True, bank=KNOWN)
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    ("auth", "debug", "configured", "enabled"),
    [
        ("", True, {}, {"bank": DeliveryAuth(allow_anonymous=True)}),
        ("none", False, {}, {"bank": DeliveryAuth(allow_anonymous=True)}),
        ("", True, {"bank": KNOWN}, {"bank": KNOWN}),
        ("", False, {"bank": KNOWN, "tochka": DeliveryAuth()}, {"bank": KNOWN}),
        ("", False, {"bank": DeliveryAuth(), "tochka": KNOWN}, {"tochka": KNOWN}),
        (
            "none",
            False,
            {"bank": DeliveryAuth(), "tochka": KNOWN},
            {"bank": DeliveryAuth(allow_anonymous=True), "tochka": KNOWN},
        ),
    ],
)
def test_enabled_endpoints(
    auth: str, debug: bool, configured: dict[str, DeliveryAuth], enabled: dict[str, DeliveryAuth]
) -> None:
    assert endpoint_auth(auth, debug=debug, **{"bank": DeliveryAuth(), **configured}) == enabled


def test_tolerance_alone_configures_nothing() -> None:
    assert not replace(DeliveryAuth(), tolerance_seconds=1).is_configured


def test_system_check_warns_of_anonymous_deliveries(settings: Settings) -> None:
    settings.WEBHOOK_AUTH = "none"
    assert [message.id for message in check_webhook_auth()] == ["ingest.W001"]
    settings.WEBHOOK_AUTH = ""
    assert check_webhook_auth() == []


@pytest.mark.parametrize("short", ["", "short", "with spaces in it, and long", "пароль-пароль-пароль"])
def test_secret_that_is_none(short: str) -> None:
    with pytest.raises(ValueError, match="16 or more visible"):
        parse_secret(short)


@pytest.mark.parametrize("text", ["", "bank", ":" + PASSWORD, "bank:", "bank:short"])
def test_credentials_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="no user, or a password"):
        parse_basic_credentials(text)
