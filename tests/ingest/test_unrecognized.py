"""Unrecognized deliveries are kept until an operator action closes them."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from core.delivery_auth import DeliveryAuth
from ingest import action_progress, doorbell, inbox, operator_actions, unrecognized
from ingest.banks import tbank, vocabulary
from ingest.banks.events import CreditEvent
from ingest.exceptions import NothingToDo
from ingest.inbox import StoreResult
from ingest.metrics import UNRECOGNIZED
from ingest.models import (
    ConflictingDelivery,
    DuplicateDelivery,
    IgnoredDelivery,
    OperatorAction,
    UnrecognizedDelivery,
    Webhook,
)
from tests.concurrency import run_concurrently
from tests.factories import ROMASHKA, balances, terms
from tests.ingest.banks.conftest import TOKEN, apply_received, load_sample
from worker import retention

pytestmark = pytest.mark.django_db(transaction=True)
Outcome = UnrecognizedDelivery.Outcome
CREDIT = {"typeOfOperation": "Zachislenie"}  # unknown to the adapter


@pytest.fixture(autouse=True)
def rings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    rings: list[str] = []
    monkeypatch.setattr(doorbell, "ring", lambda: rings.append("ring"))
    settings.ENDPOINT_AUTH = {"tbank": DeliveryAuth(bearer=[TOKEN.encode()])}
    settings.TOCHKA_CUSTOMER_CODES = ["300123123"]
    return rings


@pytest.fixture
def anna() -> User:
    return User.objects.create_user("anna")


def deliver(payload: dict[str, Any], **headers: str) -> str:
    headers = {"Authorization": f"Bearer {TOKEN}", **headers}
    response = Client().post(
        "/api/webhook/tbank/", json.dumps(payload), content_type="application/json", headers=headers
    )
    assert response.status_code == 200, response.content
    return str(response.json()["status"])


def learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tbank, "INCOMING", vocabulary.fold_all(["Credit", "Zachislenie"]))


def process(by: User, kind: OperatorAction.Kind = OperatorAction.Kind.PROCESS) -> OperatorAction:
    action = operator_actions.create_for_deliveries(
        kind, UnrecognizedDelivery.objects.all(), by, "the adapter knows it now"
    )
    while operator_actions.run_chunk(action.pk):
        pass
    return action


def outcomes() -> list[str]:
    return list(UnrecognizedDelivery.objects.order_by("id").values_list("outcome", flat=True))


# --- storage ------------------------------------------------------------------------------------------


def test_repeated_payload_of_a_source_is_stored_and_counted_once() -> None:
    before = UNRECOGNIZED._value.get()
    for _ in range(5):
        assert deliver(load_sample("tbank_transaction", **CREDIT)) == "unrecognized"
    inbox.record_unrecognized(inbox.Delivery(b"{}", "tochka"), b"{}", "why")
    inbox.record_unrecognized(inbox.Delivery(b"{}", "tbank"), b"{}", "why")

    assert UnrecognizedDelivery.open_deliveries().count() == 3
    assert UNRECOGNIZED._value.get() == before + 3


def test_concurrent_duplicates_are_stored_once() -> None:
    payload = load_sample("tbank_transaction", **CREDIT)

    def deliver_until_stored() -> str:
        try:
            return deliver(payload)
        except AssertionError:  # 503: the database was busy, and the bank sends it again
            return deliver_until_stored()

    assert set(run_concurrently([deliver_until_stored] * 20)) == {"unrecognized"}
    assert UnrecognizedDelivery.objects.count() == 1


def test_duplicate_of_dismissed_delivery_stays_closed(anna: User) -> None:
    deliver(load_sample("tbank_transaction", **CREDIT))
    process(anna, OperatorAction.Kind.DISCARD)

    assert deliver(load_sample("tbank_transaction", **CREDIT)) == "unrecognized"
    assert outcomes() == [Outcome.DISMISSED]


def test_open_deliveries_are_never_pruned(settings: Settings, anna: User) -> None:
    settings.DELIVERY_RECORDS_MAX, settings.DELIVERY_RETENTION_DAYS = 1, 1
    for number in range(5):
        deliver(load_sample("tbank_transaction", documentNumber=str(number), **CREDIT))
    process(anna)
    deliver(load_sample("tbank_transaction", documentNumber="5", **CREDIT))
    UnrecognizedDelivery.objects.update(received_at=timezone.now() - timedelta(days=400))

    assert prune() == 0
    assert outcomes() == [*[Outcome.TRIED] * 5, Outcome.UNTRIED]


def test_closed_deliveries_are_pruned_after_retention_since_the_action(
    settings: Settings, anna: User
) -> None:
    settings.DELIVERY_RETENTION_DAYS = 2
    deliver(load_sample("tbank_transaction", **CREDIT))
    UnrecognizedDelivery.objects.update(received_at=timezone.now() - timedelta(days=400))
    action = process(anna, OperatorAction.Kind.DISCARD)
    assert prune() == 0

    long_ago = timezone.now() - timedelta(days=3)
    old = OperatorAction.objects.create(
        kind=OperatorAction.Kind.DISCARD, at=long_ago, by=anna, by_name="anna", reason="why"
    )
    UnrecognizedDelivery.objects.filter(last_action=action).update(last_action=old)
    assert prune() == 1


def prune() -> int:
    """Prune; return the number of unrecognized deliveries deleted."""
    before = UnrecognizedDelivery.objects.count()
    retention.prune(lambda kind, rows: None, full_scan=True)
    return before - UnrecognizedDelivery.objects.count()


# --- processing ---------------------------------------------------------------------------------------


def test_processing_stores_and_posts_a_payment_once(
    anna: User, monkeypatch: pytest.MonkeyPatch, rings: list[str]
) -> None:
    payload = load_sample("tbank_transaction", **CREDIT)
    deliver(payload)
    assert not rings
    learn(monkeypatch)

    action = process(anna)

    assert rings == ["ring"]
    delivery = UnrecognizedDelivery.objects.get()
    webhook = Webhook.objects.get()
    assert (delivery.outcome, delivery.last_action, delivery.webhook) == (Outcome.STORED, action, webhook)
    assert (bytes(webhook.body), webhook.source, webhook.client_ip) == (
        json.dumps(payload).encode(),
        "tbank",
        "127.0.0.1",
    )
    apply_received()
    assert balances() == {ROMASHKA: 1450_50}
    assert deliver(payload) == "already processed"
    with pytest.raises(NothingToDo):
        process(anna)


def test_processing_operation_stored_meanwhile_is_duplicate_or_conflict(
    anna: User, monkeypatch: pytest.MonkeyPatch, rings: list[str]
) -> None:
    deliver(load_sample("tbank_transaction", **CREDIT))
    deliver(load_sample("tbank_transaction", accountAmount=1, **CREDIT))
    deliver(load_sample("tbank_transaction"))
    learn(monkeypatch)
    rings.clear()

    process(anna)

    assert outcomes() == [Outcome.DUPLICATE, Outcome.CONFLICT]
    assert set(UnrecognizedDelivery.objects.values_list("webhook", flat=True)) == {Webhook.objects.get().pk}
    assert (DuplicateDelivery.objects.count(), ConflictingDelivery.objects.count()) == (1, 1)
    assert not rings
    apply_received()
    assert balances() == {ROMASHKA: 1450_50}


def test_processing_ignored_event_closes_the_delivery(anna: User, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver(load_sample("tbank_transaction", operationStatus="Cancelled"))
    monkeypatch.setattr(tbank, "NOT_BOOKED", vocabulary.fold_all(["Cancelled"]))

    process(anna)

    delivery = UnrecognizedDelivery.objects.get()
    assert (delivery.outcome, delivery.reason) == (Outcome.IGNORED, "operationStatus Cancelled is not booked")
    assert not IgnoredDelivery.objects.exists()


def test_processing_still_unrecognized_delivery_keeps_it_open(
    anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(load_sample("tbank_transaction", **CREDIT))
    process(anna)
    assert outcomes() == [Outcome.TRIED]
    assert UnrecognizedDelivery.open_deliveries().count() == 1

    learn(monkeypatch)
    process(anna)
    assert outcomes() == [Outcome.STORED]


def test_delivery_signed_with_rotated_key_is_processed(
    anna: User, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = (generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
    settings.ENDPOINT_AUTH = {"tochka": DeliveryAuth(public_keys=[old.public_key()])}
    assert from_tochka(load_sample("tochka_incoming", SidePayer={"currency": "RBL"}), old) == "unrecognized"
    settings.ENDPOINT_AUTH = {"tochka": DeliveryAuth(public_keys=[new.public_key()])}
    monkeypatch.setattr(vocabulary, "RUBLES", vocabulary.RUBLES | {"RBL"})

    process(anna)

    assert outcomes() == [Outcome.STORED]
    apply_received()
    assert balances() == {ROMASHKA: 40_00}


def test_former_customer_and_removed_adapter_keep_deliveries_open(anna: User, settings: Settings) -> None:
    settings.TOCHKA_CUSTOMER_CODES = []
    token = jwt.encode(load_sample("tochka_incoming"), "a secret of 32 bytes or even more", algorithm="HS256")
    inbox.record_unrecognized(inbox.Delivery(token.encode(), "tochka"), b"1", "why")
    inbox.record_unrecognized(inbox.Delivery(b"{}", "bank-of-yore"), b"2", "why")

    process(anna)

    assert outcomes() == [Outcome.TRIED] * 2
    assert list(UnrecognizedDelivery.objects.order_by("id").values_list("reason", flat=True)) == [
        "another customer's by today's settings: another customer's event",
        "no adapter of this source exists any more",
    ]


def test_failing_adapter_does_not_stop_other_deliveries(anna: User, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver(load_sample("tbank_transaction", documentNumber="1", **CREDIT))
    deliver(load_sample("tbank_transaction", documentNumber="2", operationId="2", **CREDIT))
    learn(monkeypatch)
    read = tbank._credit

    def failing(operation: Any) -> Any:
        assert operation.text("documentNumber") != "1"
        return read(operation)

    monkeypatch.setattr(tbank, "_credit", failing)
    process(anna)

    assert outcomes() == [Outcome.TRIED, Outcome.STORED]


def test_action_resumes_after_its_request_died(anna: User, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        deliver(
            load_sample("tbank_transaction", documentNumber=str(number), operationId=str(number), **CREDIT)
        )
    learn(monkeypatch)
    monkeypatch.setattr(unrecognized, "CHUNK_DELIVERIES", 2)
    action = operator_actions.create_for_deliveries(
        OperatorAction.Kind.PROCESS, UnrecognizedDelivery.objects.all(), anna, "why"
    )
    operator_actions.run_chunk(action.pk)
    assert operator_actions.pending_ids() == [action.pk]

    operator_actions.run_pending(60)

    assert operator_actions.pending_ids() == []
    assert outcomes() == [Outcome.STORED] * 3
    assert action_progress.progress(action).is_finished


def test_delivery_is_claimed_by_one_action(anna: User, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        deliver(
            load_sample("tbank_transaction", documentNumber=str(number), operationId=str(number), **CREDIT)
        )
    learn(monkeypatch)
    deliveries = UnrecognizedDelivery.objects.all()
    action = operator_actions.create_for_deliveries(
        OperatorAction.Kind.PROCESS, deliveries, anna, "the first"
    )

    with pytest.raises(NothingToDo):
        operator_actions.create_for_deliveries(OperatorAction.Kind.DISCARD, deliveries, anna, "the second")
    operator_actions.run_chunk(action.pk)

    assert outcomes() == [Outcome.STORED] * 4
    assert DuplicateDelivery.objects.count() == 0


def from_tochka(payload: dict[str, Any], key: RSAPrivateKey) -> str:
    token = jwt.encode(payload, key, algorithm="RS256")
    response = Client().post("/api/webhook/tochka/", token, content_type="text/plain")
    return str(response.json()["status"])


# --- operation ids across sources ---------------------------------------------------------------------


def test_operation_of_another_source_is_a_conflict_even_with_equal_terms() -> None:
    event = tbank.read(json.dumps(load_sample("tbank_transaction")).encode())
    assert isinstance(event, CreditEvent)
    assert inbox.store(event.terms, inbox.Delivery(b"{}", "bank")) is StoreResult.CREATED

    assert deliver(load_sample("tbank_transaction")) == "already processed"

    assert ConflictingDelivery.objects.get().difference == "bank_reference, source"
    apply_received()
    assert balances() == {ROMASHKA: 1450_50}


def test_conflict_lists_source_before_differing_terms() -> None:
    first = terms(1)
    inbox.store(first, inbox.Delivery(b"{}", "bank"))

    assert (
        inbox.store(replace(first, amount_kopecks=40_00), inbox.Delivery(b"{}", "tochka"))
        is StoreResult.CONFLICT
    )
    assert inbox.store(first, inbox.Delivery(b"[]", "tochka")) is StoreResult.CONFLICT
    assert inbox.store(first, inbox.Delivery(b"{}", "bank")) is StoreResult.DUPLICATE

    differences = ConflictingDelivery.objects.order_by("id").values_list("difference", flat=True)
    assert list(differences) == ["source, amount_kopecks", "source"]
