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

from ingest import acts, doorbell, inbox, unrecognized
from ingest.banks import tbank, words
from ingest.banks.telling import Credit
from ingest.doorkeeper import Guard
from ingest.exceptions import NoWebhooks
from ingest.inbox import Stored
from ingest.metrics import UNRECOGNIZED
from ingest.models import (
    Act,
    ConflictingDelivery,
    IgnoredDelivery,
    RepeatedDelivery,
    UnrecognizedDelivery,
    Webhook,
)
from tests.cast import ROMASHKA, balances, terms
from tests.ingest.banks.conftest import TOKEN, applied, sample
from tests.threads import at_once
from worker import acting, retention

pytestmark = pytest.mark.django_db(transaction=True)
Outcome = UnrecognizedDelivery.Outcome
CREDIT = {"typeOfOperation": "Zachislenie"}  # what the adapter has to learn


@pytest.fixture(autouse=True)
def rings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    heard: list[str] = []
    monkeypatch.setattr(doorbell, "ring", lambda: heard.append("ring"))
    settings.WEBHOOK_GUARDS = {"tbank": Guard(bearer=[TOKEN.encode()])}
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
    monkeypatch.setattr(tbank, "INCOMING", words.known(["Credit", "Zachislenie"]))


def process(by: User, kind: Act.Kind = Act.Kind.PROCESS) -> Act:
    act = acts.begin_on_deliveries(kind, UnrecognizedDelivery.objects.all(), by, "the adapter knows it now")
    while acts.carry_out(act.pk):
        pass
    return act


def outcomes() -> list[str]:
    return list(UnrecognizedDelivery.objects.order_by("id").values_list("outcome", flat=True))


# --- keeping ----------------------------------------------------------------------------------------


def test_a_repeated_payload_of_one_source_is_kept_once_and_counted_once() -> None:
    before = UNRECOGNIZED._value.get()
    for _ in range(5):
        assert deliver(sample("tbank_transaction", **CREDIT)) == "unrecognized"
    inbox.keep_unrecognized(b"{}", b"{}", "why", "tochka")
    inbox.keep_unrecognized(b"{}", b"{}", "why", "tbank")

    assert UnrecognizedDelivery.waiting().count() == 3
    assert UNRECOGNIZED._value.get() == before + 3


def test_twenty_simultaneous_repeats_are_kept_once() -> None:
    told = sample("tbank_transaction", **CREDIT)

    def persist() -> str:
        try:
            return deliver(told)
        except AssertionError:  # 503: the database was busy, and the bank sends it again
            return persist()

    assert set(at_once([persist] * 20)) == {"unrecognized"}
    assert UnrecognizedDelivery.objects.count() == 1


def test_a_repeat_of_a_dismissed_delivery_opens_nothing(anna: User) -> None:
    deliver(sample("tbank_transaction", **CREDIT))
    process(anna, Act.Kind.DISCARD)

    assert deliver(sample("tbank_transaction", **CREDIT)) == "unrecognized"
    assert outcomes() == [Outcome.DISMISSED]


def test_open_deliveries_are_never_deleted_neither_by_number_nor_by_age(
    settings: Settings, anna: User
) -> None:
    settings.KEPT_DELIVERIES_MAX, settings.KEPT_DELIVERIES_DAYS = 1, 1
    for number in range(5):
        deliver(sample("tbank_transaction", documentNumber=str(number), **CREDIT))
    process(anna)
    deliver(sample("tbank_transaction", documentNumber="5", **CREDIT))
    UnrecognizedDelivery.objects.update(received_at=timezone.now() - timedelta(days=400))

    assert prune() == 0
    assert outcomes() == [*[Outcome.TRIED] * 5, Outcome.UNTRIED]


def test_closed_deliveries_are_deleted_some_time_after_the_act(settings: Settings, anna: User) -> None:
    settings.KEPT_DELIVERIES_DAYS = 2
    deliver(sample("tbank_transaction", **CREDIT))
    UnrecognizedDelivery.objects.update(received_at=timezone.now() - timedelta(days=400))
    act = process(anna, Act.Kind.DISCARD)
    assert prune() == 0

    long_ago = timezone.now() - timedelta(days=3)
    old = Act.objects.create(kind=Act.Kind.DISCARD, at=long_ago, by=anna, by_name="anna", reason="why")
    UnrecognizedDelivery.objects.filter(closed_in=act).update(closed_in=old)
    assert prune() == 1


def prune() -> int:
    """How many unrecognized deliveries are gone."""
    before = UnrecognizedDelivery.objects.count()
    retention.prune(lambda kind, rows: None, thorough=True)
    return before - UnrecognizedDelivery.objects.count()


# --- processing again -------------------------------------------------------------------------------


def test_processed_again_a_payment_is_stored_and_posted_once(
    anna: User, monkeypatch: pytest.MonkeyPatch, rings: list[str]
) -> None:
    told = sample("tbank_transaction", **CREDIT)
    deliver(told)
    assert not rings
    learn(monkeypatch)

    act = process(anna)

    assert rings == ["ring"]
    kept = UnrecognizedDelivery.objects.get()
    webhook = Webhook.objects.get()
    assert (kept.outcome, kept.closed_in, kept.webhook) == (Outcome.STORED, act, webhook)
    assert (bytes(webhook.body), webhook.source, webhook.source_address) == (
        json.dumps(told).encode(),
        "tbank",
        "127.0.0.1",
    )
    applied()
    assert balances() == {ROMASHKA: 1450_50}
    assert deliver(told) == "already processed"
    with pytest.raises(NoWebhooks):
        process(anna)


def test_processed_again_what_was_stored_meanwhile_is_a_repeat_or_a_conflict(
    anna: User, monkeypatch: pytest.MonkeyPatch, rings: list[str]
) -> None:
    deliver(sample("tbank_transaction", **CREDIT))
    deliver(sample("tbank_transaction", accountAmount=1, **CREDIT))
    deliver(sample("tbank_transaction"))
    learn(monkeypatch)
    rings.clear()

    process(anna)

    assert outcomes() == [Outcome.REPEATED, Outcome.CONFLICTING]
    assert set(UnrecognizedDelivery.objects.values_list("webhook", flat=True)) == {Webhook.objects.get().pk}
    assert (RepeatedDelivery.objects.count(), ConflictingDelivery.objects.count()) == (1, 1)
    assert not rings
    applied()
    assert balances() == {ROMASHKA: 1450_50}


def test_processed_again_what_the_adapter_knows_to_ignore_is_closed(
    anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(sample("tbank_transaction", operationStatus="Cancelled"))
    monkeypatch.setattr(tbank, "NOT_BOOKED", words.known(["Cancelled"]))

    process(anna)

    kept = UnrecognizedDelivery.objects.get()
    assert (kept.outcome, kept.reason) == (Outcome.IGNORED, "operationStatus Cancelled is not booked")
    assert not IgnoredDelivery.objects.exists()


def test_processed_again_what_is_still_unrecognized_stays_open_and_may_be_tried_again(
    anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(sample("tbank_transaction", **CREDIT))
    process(anna)
    assert outcomes() == [Outcome.TRIED]
    assert UnrecognizedDelivery.waiting().count() == 1

    learn(monkeypatch)
    process(anna)
    assert outcomes() == [Outcome.STORED]


def test_a_delivery_whose_key_was_rotated_is_processed_again(
    anna: User, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = (generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
    settings.WEBHOOK_GUARDS = {"tochka": Guard(public_keys=[old.public_key()])}
    assert from_tochka(sample("tochka_incoming", SidePayer={"currency": "RBL"}), old) == "unrecognized"
    settings.WEBHOOK_GUARDS = {"tochka": Guard(public_keys=[new.public_key()])}
    monkeypatch.setattr(words, "RUBLES", words.RUBLES | {"RBL"})

    process(anna)

    assert outcomes() == [Outcome.STORED]
    applied()
    assert balances() == {ROMASHKA: 40_00}


def test_a_customer_that_is_ours_no_more_and_a_source_without_adapter_stay_open(
    anna: User, settings: Settings
) -> None:
    settings.TOCHKA_CUSTOMER_CODES = []
    token = jwt.encode(sample("tochka_incoming"), "a secret of 32 bytes or even more", algorithm="HS256")
    inbox.keep_unrecognized(token.encode(), b"1", "why", "tochka")
    inbox.keep_unrecognized(b"{}", b"2", "why", "bank-of-yore")

    process(anna)

    assert outcomes() == [Outcome.TRIED] * 2
    assert list(UnrecognizedDelivery.objects.order_by("id").values_list("reason", flat=True)) == [
        "not meant for us by today's settings: another customer's event",
        "there is no adapter of this source any more",
    ]


def test_a_failing_adapter_stops_no_other_delivery(anna: User, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver(sample("tbank_transaction", documentNumber="1", **CREDIT))
    deliver(sample("tbank_transaction", documentNumber="2", operationId="2", **CREDIT))
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
        deliver(sample("tbank_transaction", documentNumber=str(number), operationId=str(number), **CREDIT))
    learn(monkeypatch)
    monkeypatch.setattr(unrecognized, "CHUNK_DELIVERIES", 2)
    act = acts.begin_on_deliveries(Act.Kind.PROCESS, UnrecognizedDelivery.objects.all(), anna, "why")
    acts.carry_out(act.pk)
    assert acts.unfinished() == [act.pk]

    acting.carry_out_for(60)

    assert acts.unfinished() == []
    assert outcomes() == [Outcome.STORED] * 3
    assert acts.progress(act).is_over


def test_two_acts_at_once_process_each_delivery_once(anna: User, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        deliver(sample("tbank_transaction", documentNumber=str(number), operationId=str(number), **CREDIT))
    learn(monkeypatch)
    everything = UnrecognizedDelivery.objects.all()
    act = acts.begin_on_deliveries(Act.Kind.PROCESS, everything, anna, "the first")

    with pytest.raises(NoWebhooks):
        acts.begin_on_deliveries(Act.Kind.DISCARD, everything, anna, "the second")
    acts.carry_out(act.pk)

    assert outcomes() == [Outcome.STORED] * 4
    assert RepeatedDelivery.objects.count() == 0


def from_tochka(told: dict[str, Any], key: RSAPrivateKey) -> str:
    token = jwt.encode(told, key, algorithm="RS256")
    response = Client().post("/api/webhook/tochka/", token, content_type="text/plain")
    return str(response.json()["status"])


# --- one space of operation ids ---------------------------------------------------------------------


def test_an_operation_that_another_source_has_stored_is_a_conflict_even_with_equal_terms() -> None:
    told = tbank.read(json.dumps(sample("tbank_transaction")).encode())
    assert isinstance(told, Credit)
    assert inbox.store(told.terms, b"{}", "bank") is Stored.NEW

    assert deliver(sample("tbank_transaction")) == "already processed"

    assert ConflictingDelivery.objects.get().difference == "bank_id, source"
    applied()
    assert balances() == {ROMASHKA: 1450_50}


def test_a_conflict_names_the_source_before_the_terms_that_differ() -> None:
    first = terms(1)
    inbox.store(first, b"{}", "bank")

    assert inbox.store(replace(first, amount_kopecks=40_00), b"{}", "tochka") is Stored.CONFLICTING
    assert inbox.store(first, b"{}", "tochka") is Stored.CONFLICTING
    assert inbox.store(first, b"{}", "bank") is Stored.REPEATED

    differences = ConflictingDelivery.objects.order_by("id").values_list("difference", flat=True)
    assert list(differences) == ["source, amount_kopecks", "source"]
