"""What may be money and no adapter recognizes: kept until a person has closed it, and processed again."""

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
from ingest import doorbell, inbox, operator_actions, unrecognized
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
from worker import acting, retention

pytestmark = pytest.mark.django_db(transaction=True)
Outcome = UnrecognizedDelivery.Outcome
CREDIT = {"typeOfOperation": "Zachislenie"}  # what the adapter has to learn


@pytest.fixture(autouse=True)
def rings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    heard: list[str] = []
    monkeypatch.setattr(doorbell, "ring", lambda: heard.append("ring"))
    settings.ENDPOINT_AUTH = {"tbank": DeliveryAuth(bearer=[TOKEN.encode()])}
    settings.TOCHKA_CUSTOMER_CODES = ["300123123"]
    return heard


@pytest.fixture
def anna() -> User:
    return User.objects.create_user("anna")


def deliver(told: dict[str, Any], **headers: str) -> str:
    headers = {"Authorization": f"Bearer {TOKEN}", **headers}
    response = Client().post(
        "/api/webhook/tbank/", json.dumps(told), content_type="application/json", headers=headers
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


# --- keeping ----------------------------------------------------------------------------------------


def test_a_repeated_payload_of_one_source_is_kept_once_and_counted_once() -> None:
    before = UNRECOGNIZED._value.get()
    for _ in range(5):
        assert deliver(load_sample("tbank_transaction", **CREDIT)) == "unrecognized"
    inbox.record_unrecognized(inbox.Delivery(b"{}", "tochka"), b"{}", "why")
    inbox.record_unrecognized(inbox.Delivery(b"{}", "tbank"), b"{}", "why")

    assert UnrecognizedDelivery.open_deliveries().count() == 3
    assert UNRECOGNIZED._value.get() == before + 3


def test_twenty_simultaneous_repeats_are_kept_once() -> None:
    told = load_sample("tbank_transaction", **CREDIT)

    def persist() -> str:
        try:
            return deliver(told)
        except AssertionError:  # 503: the database was busy, and the bank sends it again
            return persist()

    assert set(run_concurrently([persist] * 20)) == {"unrecognized"}
    assert UnrecognizedDelivery.objects.count() == 1


def test_a_repeat_of_a_dismissed_delivery_opens_nothing(anna: User) -> None:
    deliver(load_sample("tbank_transaction", **CREDIT))
    process(anna, OperatorAction.Kind.DISCARD)

    assert deliver(load_sample("tbank_transaction", **CREDIT)) == "unrecognized"
    assert outcomes() == [Outcome.DISMISSED]


def test_open_deliveries_are_never_deleted_neither_by_number_nor_by_age(
    settings: Settings, anna: User
) -> None:
    settings.DELIVERY_RECORDS_MAX, settings.DELIVERY_RETENTION_DAYS = 1, 1
    for number in range(5):
        deliver(load_sample("tbank_transaction", documentNumber=str(number), **CREDIT))
    process(anna)
    deliver(load_sample("tbank_transaction", documentNumber="5", **CREDIT))
    UnrecognizedDelivery.objects.update(received_at=timezone.now() - timedelta(days=400))

    assert prune() == 0
    assert outcomes() == [*[Outcome.TRIED] * 5, Outcome.UNTRIED]


def test_closed_deliveries_are_deleted_some_time_after_the_act(settings: Settings, anna: User) -> None:
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
    """How many unrecognized deliveries are gone."""
    before = UnrecognizedDelivery.objects.count()
    retention.prune(lambda kind, rows: None, full_scan=True)
    return before - UnrecognizedDelivery.objects.count()


# --- processing again -------------------------------------------------------------------------------


def test_processed_again_a_payment_is_stored_and_posted_once(
    anna: User, monkeypatch: pytest.MonkeyPatch, rings: list[str]
) -> None:
    told = load_sample("tbank_transaction", **CREDIT)
    deliver(told)
    assert not rings
    learn(monkeypatch)

    action = process(anna)

    assert rings == ["ring"]
    kept = UnrecognizedDelivery.objects.get()
    webhook = Webhook.objects.get()
    assert (kept.outcome, kept.last_action, kept.webhook) == (Outcome.STORED, action, webhook)
    assert (bytes(webhook.body), webhook.source, webhook.client_ip) == (
        json.dumps(told).encode(),
        "tbank",
        "127.0.0.1",
    )
    apply_received()
    assert balances() == {ROMASHKA: 1450_50}
    assert deliver(told) == "already processed"
    with pytest.raises(NothingToDo):
        process(anna)


def test_processed_again_what_was_stored_meanwhile_is_a_repeat_or_a_conflict(
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


def test_processed_again_what_the_adapter_knows_to_ignore_is_closed(
    anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(load_sample("tbank_transaction", operationStatus="Cancelled"))
    monkeypatch.setattr(tbank, "NOT_BOOKED", vocabulary.fold_all(["Cancelled"]))

    process(anna)

    kept = UnrecognizedDelivery.objects.get()
    assert (kept.outcome, kept.reason) == (Outcome.IGNORED, "operationStatus Cancelled is not booked")
    assert not IgnoredDelivery.objects.exists()


def test_processed_again_what_is_still_unrecognized_stays_open_and_may_be_tried_again(
    anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(load_sample("tbank_transaction", **CREDIT))
    process(anna)
    assert outcomes() == [Outcome.TRIED]
    assert UnrecognizedDelivery.open_deliveries().count() == 1

    learn(monkeypatch)
    process(anna)
    assert outcomes() == [Outcome.STORED]


def test_a_delivery_whose_key_was_rotated_is_processed_again(
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


def test_a_customer_that_is_ours_no_more_and_a_source_without_adapter_stay_open(
    anna: User, settings: Settings
) -> None:
    settings.TOCHKA_CUSTOMER_CODES = []
    token = jwt.encode(load_sample("tochka_incoming"), "a secret of 32 bytes or even more", algorithm="HS256")
    inbox.record_unrecognized(inbox.Delivery(token.encode(), "tochka"), b"1", "why")
    inbox.record_unrecognized(inbox.Delivery(b"{}", "bank-of-yore"), b"2", "why")

    process(anna)

    assert outcomes() == [Outcome.TRIED] * 2
    assert list(UnrecognizedDelivery.objects.order_by("id").values_list("reason", flat=True)) == [
        "not meant for us by today's settings: another customer's event",
        "there is no adapter of this source any more",
    ]


def test_a_failing_adapter_stops_no_other_delivery(anna: User, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_an_act_whose_request_died_is_carried_on_by_a_worker(
    anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
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

    acting.run_pending(60)

    assert operator_actions.pending_ids() == []
    assert outcomes() == [Outcome.STORED] * 3
    assert operator_actions.progress(action).is_over


def test_two_acts_at_once_process_each_delivery_once(anna: User, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        deliver(
            load_sample("tbank_transaction", documentNumber=str(number), operationId=str(number), **CREDIT)
        )
    learn(monkeypatch)
    everything = UnrecognizedDelivery.objects.all()
    action = operator_actions.create_for_deliveries(
        OperatorAction.Kind.PROCESS, everything, anna, "the first"
    )

    with pytest.raises(NothingToDo):
        operator_actions.create_for_deliveries(OperatorAction.Kind.DISCARD, everything, anna, "the second")
    operator_actions.run_chunk(action.pk)

    assert outcomes() == [Outcome.STORED] * 4
    assert DuplicateDelivery.objects.count() == 0


def from_tochka(told: dict[str, Any], key: RSAPrivateKey) -> str:
    token = jwt.encode(told, key, algorithm="RS256")
    response = Client().post("/api/webhook/tochka/", token, content_type="text/plain")
    return str(response.json()["status"])


# --- one space of operation ids ---------------------------------------------------------------------


def test_an_operation_that_another_source_has_stored_is_a_conflict_even_with_equal_terms() -> None:
    told = tbank.read(json.dumps(load_sample("tbank_transaction")).encode())
    assert isinstance(told, CreditEvent)
    assert inbox.store(told.terms, inbox.Delivery(b"{}", "bank")) is StoreResult.CREATED

    assert deliver(load_sample("tbank_transaction")) == "already processed"

    assert ConflictingDelivery.objects.get().difference == "bank_reference, source"
    apply_received()
    assert balances() == {ROMASHKA: 1450_50}


def test_a_conflict_names_the_source_before_the_terms_that_differ() -> None:
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
