"""Who gets in, who doesn't, what a stranger is told, and what the log is."""

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
from ingest import authentication, doorbell
from ingest.checks import check_webhook_auth
from ingest.models import RejectedDelivery, Webhook
from ingest.signatures import hex_signature, signature
from tests.factories import payment_body, terms
from tests.ingest.test_signatures import BANK, STRANGER, token

PATH = "/api/webhook/bank/"
OLD, NEW, FOREIGN = b"o" * 32, b"n" * 32, b"f" * 32
PASSWORD = "long-enough-a-password"
SUCCESS = {"status": "success"}
REFUSED = {"error": "not authorized"}


@pytest.fixture(autouse=True)
def quiet_doorbell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorbell, "ring", lambda: None)
    monkeypatch.setattr(authentication, "throttle", LogThrottle())


@pytest.fixture
def guarded(settings: Settings) -> Callable[..., None]:
    def guard(**known: Any) -> None:
        settings.ENDPOINT_AUTH = {"bank": DeliveryAuth(**known)}

    return guard


def deliver(delivery: bytes | None = None, *, headers: dict[str, str] | None = None, **environ: str) -> Any:
    """The status and the answer of a delivery that is valid unless told otherwise."""
    sent = payment_body(terms()) if delivery is None else delivery
    response = Client().post(PATH, sent, "application/json", headers=headers, **environ)  # type: ignore[arg-type]
    if response.status_code == 401:
        assert response["WWW-Authenticate"].startswith("Basic realm=")
    return response.status_code, json.loads(response.content)


def signed(delivery: bytes, *keys: bytes, age: int = 0, **changed: str) -> dict[str, str]:
    """The headers of Standard Webhooks, signed with each key `age` seconds ago; `changed` after signing."""
    at = str(int(time.time()) - age)
    signatures = " ".join(signature(key, "msg_1", at, delivery).decode() for key in keys)
    told = {"webhook_id": "msg_1", "webhook_timestamp": at, "webhook_signature": signatures, **changed}
    return {name.replace("_", "-"): value for name, value in told.items()}


def turned_away(*answered: Any) -> None:
    """Nothing of it was kept, and the stranger was told nothing."""
    assert answered == (401, REFUSED)
    assert not Webhook.objects.exists()
    assert not RejectedDelivery.objects.exists()


# Standard Webhooks


@pytest.mark.django_db
@pytest.mark.parametrize("keys", [[OLD], [NEW], [FOREIGN, NEW], [OLD, NEW]])
def test_signed_by_a_known_secret(guarded: Callable[..., None], keys: list[bytes]) -> None:
    guarded(secrets=[OLD, NEW])
    delivery = payment_body(terms())
    assert deliver(delivery, headers=signed(delivery, *keys)) == (200, SUCCESS)


@pytest.mark.django_db
@pytest.mark.parametrize("age", [-301, 301, 86_400])
def test_signed_outside_the_tolerance(guarded: Callable[..., None], age: int) -> None:
    guarded(secrets=[OLD])
    delivery = payment_body(terms())
    # A second more than allowed, and one for the clock to go on meanwhile.
    turned_away(*deliver(delivery, headers=signed(delivery, OLD, age=age - 2 if age < 0 else age)))


@pytest.mark.django_db
@pytest.mark.parametrize("age", [-298, 0, 298])
def test_signed_within_the_tolerance(guarded: Callable[..., None], age: int) -> None:
    guarded(secrets=[OLD])
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
def test_changed_after_signing(guarded: Callable[..., None], changed: dict[str, str]) -> None:
    guarded(secrets=[OLD])
    delivery = payment_body(terms())
    turned_away(*deliver(delivery, headers=signed(delivery, OLD, **changed)))


@pytest.mark.django_db
def test_id_with_a_full_stop_though_rightly_signed(guarded: Callable[..., None]) -> None:
    """The standard's own advice: what is signed could be cut into id, time and body in two ways."""
    guarded(secrets=[OLD])
    delivery, at = payment_body(terms()), str(int(time.time()))
    shown = signature(OLD, "msg.1", at, delivery).decode()
    headers = signed(delivery, webhook_id="msg.1", webhook_timestamp=at, webhook_signature=shown)
    turned_away(*deliver(delivery, headers=headers))


@pytest.mark.django_db
def test_another_version_of_a_right_signature(guarded: Callable[..., None]) -> None:
    guarded(secrets=[OLD])
    delivery = payment_body(terms())
    headers = signed(delivery, OLD)
    headers["webhook-signature"] = headers["webhook-signature"].replace("v1,", "v1a,")
    turned_away(*deliver(delivery, headers=headers))


@pytest.mark.django_db
@pytest.mark.parametrize("kept", [5, 20, 46])
def test_beginning_of_a_right_signature(guarded: Callable[..., None], kept: int) -> None:
    guarded(secrets=[OLD])
    delivery = payment_body(terms())
    headers = signed(delivery, OLD)
    headers["webhook-signature"] = headers["webhook-signature"][:kept]
    turned_away(*deliver(delivery, headers=headers))


@pytest.mark.django_db
def test_one_byte_of_the_body_changed(guarded: Callable[..., None]) -> None:
    guarded(secrets=[OLD])
    delivery = payment_body(terms())
    turned_away(*deliver(delivery + b" ", headers=signed(delivery, OLD)))


@pytest.mark.django_db
def test_garbage_is_not_even_parsed(guarded: Callable[..., None]) -> None:
    guarded(secrets=[OLD])
    turned_away(*deliver(b"[" * 10_000))


@pytest.mark.django_db
def test_the_bank_itself_may_be_wrong(guarded: Callable[..., None]) -> None:
    guarded(secrets=[OLD])
    assert deliver(b"{}", headers=signed(b"{}", OLD))[0] == 400
    assert RejectedDelivery.objects.count() == 1


# The plain signature, credentials, tokens


@pytest.mark.django_db
@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_plain_signature(guarded: Callable[..., None], case: Callable[[str], str]) -> None:
    guarded(x_signature_secrets=[OLD])
    delivery = payment_body(terms())
    shown = case(hex_signature(OLD, delivery).decode())
    turned_away(*deliver(delivery, headers={"X-Signature": shown[:-1]}))
    turned_away(*deliver(delivery, headers={"X-Signature": hex_signature(FOREIGN, delivery).decode()}))
    assert deliver(delivery, headers={"X-Signature": shown}) == (200, SUCCESS)


BASIC = parse_basic_credentials(f"банк:{PASSWORD}").decode()


@pytest.mark.django_db
@pytest.mark.parametrize("shown", [f"Basic {BASIC}", f"basic {BASIC}", f"Bearer {PASSWORD}"])
def test_known_credentials(guarded: Callable[..., None], shown: str) -> None:
    guarded(basic=[BASIC.encode()], bearer=[parse_secret(PASSWORD)])
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
def test_unknown_credentials(guarded: Callable[..., None], shown: str) -> None:
    guarded(basic=[BASIC.encode()], bearer=[parse_secret(PASSWORD)])
    turned_away(*deliver(headers={"Authorization": shown}))


@pytest.mark.django_db
def test_each_kind_of_proof_opens_only_where_it_is_set(guarded: Callable[..., None]) -> None:
    guarded(basic=[BASIC.encode()])
    delivery = payment_body(terms())
    turned_away(*deliver(delivery, headers={"Authorization": f"Bearer {PASSWORD}"}))
    turned_away(*deliver(delivery, headers=signed(delivery, OLD)))
    turned_away(*deliver(delivery, headers=signed(delivery, b"")))
    turned_away(*deliver(delivery, headers={"X-Signature": hex_signature(b"", delivery).decode()}))


@pytest.mark.django_db
@pytest.mark.parametrize("behind", [b"", b"\n"])
def test_token_is_kept_whole_and_its_payload_parsed(guarded: Callable[..., None], behind: bytes) -> None:
    guarded(public_keys=[BANK.public_key()])
    told = terms()
    delivery = token(payment_body(told)) + behind
    assert deliver(delivery) == (200, SUCCESS)
    webhook = Webhook.objects.get()
    assert webhook.terms == told
    assert bytes(webhook.body) == delivery


@pytest.mark.django_db
def test_no_token_of_the_bank(guarded: Callable[..., None]) -> None:
    guarded(public_keys=[BANK.public_key()])
    turned_away(*deliver(token(payment_body(terms()), key=STRANGER)))
    turned_away(*deliver())


@pytest.mark.django_db
def test_where_tokens_and_credentials_are_set_both_are_needed(guarded: Callable[..., None]) -> None:
    guarded(public_keys=[BANK.public_key()], bearer=[parse_secret(PASSWORD)])
    authorized = {"Authorization": f"Bearer {PASSWORD}"}
    turned_away(*deliver(token(payment_body(terms()))))
    turned_away(*deliver(headers=authorized))
    assert deliver(token(payment_body(terms())), headers=authorized) == (200, SUCCESS)


# Networks


@pytest.mark.django_db
@pytest.mark.parametrize("peer", ["192.0.2.7", "::ffff:192.0.2.7", "2001:db8::1", "198.51.100.200"])
def test_known_network(guarded: Callable[..., None], peer: str) -> None:
    guarded(
        networks=[parse_network(one) for one in ("192.0.2.7", "2001:db8::/32", "::ffff:198.51.100.0/120")]
    )
    assert deliver(REMOTE_ADDR=peer) == (200, SUCCESS)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "peer", ["192.0.2.8", "::ffff:192.0.2.8", "2001:db9::1", "", "unix:", "192.0.2.7:80"]
)
def test_unknown_network_or_none(guarded: Callable[..., None], peer: str) -> None:
    guarded(networks=[parse_network("192.0.2.7"), parse_network("2001:db8::/32")])
    turned_away(*deliver(REMOTE_ADDR=peer))


BANKS, STRANGERS, PROXY = "192.0.2.7", "203.0.113.9", "10.0.0.1"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("proxies", "forwarded", "status"),
    [
        (0, BANKS, 401),  # nobody's word is taken
        (1, BANKS, 200),
        (1, f"{STRANGERS}, {BANKS}", 200),
        (1, f"{BANKS}, {STRANGERS}", 401),  # made up by the stranger, before the proxy added to it
        (2, f"{BANKS}, {PROXY}", 200),
        (2, f"{BANKS},{STRANGERS},{PROXY}", 401),
        (2, BANKS, 503),  # it has passed fewer proxies than there are
        (1, "", 503),
        (1, f"{BANKS},", 503),
        (1, "unknown", 503),
    ],
)
def test_proxies_are_counted_from_the_right(
    guarded: Callable[..., None], settings: Settings, proxies: int, forwarded: str, status: int
) -> None:
    guarded(networks=[parse_network(BANKS)])
    settings.TRUSTED_PROXIES = proxies
    assert deliver(REMOTE_ADDR=PROXY, headers={"X-Forwarded-For": forwarded})[0] == status


@pytest.mark.django_db
def test_known_network_is_not_enough_where_secrets_are_set(guarded: Callable[..., None]) -> None:
    guarded(networks=[parse_network(BANKS)], secrets=[OLD])
    delivery = payment_body(terms())
    turned_away(*deliver(delivery, REMOTE_ADDR=BANKS))
    turned_away(*deliver(delivery, headers=signed(delivery, OLD), REMOTE_ADDR=STRANGERS))
    assert deliver(delivery, headers=signed(delivery, OLD), REMOTE_ADDR=BANKS) == (200, SUCCESS)


# The door itself


@pytest.mark.django_db
def test_door_without_a_guard_has_the_bank_send_again(settings: Settings) -> None:
    settings.ENDPOINT_AUTH = {}
    response = Client(enforce_csrf_checks=True).post(PATH)
    assert (response.status_code, response["Retry-After"]) == (503, "5")


@pytest.mark.django_db
def test_guard_that_knows_nobody_lets_nobody_in(guarded: Callable[..., None]) -> None:
    guarded()
    turned_away(*deliver())


@pytest.mark.django_db
def test_cheap_refusals_come_before_any_proof(guarded: Callable[..., None]) -> None:
    guarded(secrets=[OLD])
    assert Client().get(PATH).status_code == 405
    assert deliver(CONTENT_LENGTH="")[0] == 411
    assert deliver(b" " * 65_537)[0] == 413


def test_a_flood_of_strangers_is_a_line_now_and_then(
    guarded: Callable[..., None], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded(bearer=[parse_secret(PASSWORD)])
    caplog.set_level(logging.INFO)
    clock = SimpleNamespace(monotonic=lambda: clock.now, time=time.time, now=1000.0)
    monkeypatch.setattr(log_throttle, "time", clock)

    for _ in range(500):
        deliver(b"s3cret body", headers={"Authorization": "Bearer s3cret token"})
    clock.now += log_throttle.EVERY_SECONDS
    deliver(b"s3cret body", headers={"Authorization": "Bearer s3cret token"})

    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert "'suppressed': 499" in lines[1]
    assert "no known credentials" in lines[0]
    assert "127.0.0.1" in lines[0]
    assert "s3cret" not in "".join(lines)
    assert PASSWORD not in "".join(lines)


# The settings

KNOWN = DeliveryAuth(secrets=[OLD])


def test_production_needs_somebody_to_say_who_may_deliver() -> None:
    with pytest.raises(ImproperlyConfigured, match="no webhook authentication is configured"):
        endpoint_auth("", debug=False, bank=DeliveryAuth())


def test_everybody_and_somebody_contradict_each_other() -> None:
    with pytest.raises(ImproperlyConfigured, match="contradicts"):
        endpoint_auth("none", debug=False, bank=KNOWN)


def test_only_none_can_be_said() -> None:
    with pytest.raises(ImproperlyConfigured, match="malformed") as told:
        endpoint_auth("s3cret", debug=True, bank=KNOWN)
    assert "s3cret" not in str(told.value)


@pytest.mark.parametrize(
    ("auth", "debug", "told", "opened"),
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
def test_doors_that_are_open(
    auth: str, debug: bool, told: dict[str, DeliveryAuth], opened: dict[str, DeliveryAuth]
) -> None:
    assert endpoint_auth(auth, debug=debug, **{"bank": DeliveryAuth(), **told}) == opened


def test_tolerance_alone_says_nobody() -> None:
    assert not replace(DeliveryAuth(), tolerance_seconds=1).is_configured


def test_the_check_warns_of_a_door_for_everybody(settings: Settings) -> None:
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
