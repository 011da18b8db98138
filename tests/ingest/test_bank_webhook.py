import json
import logging
from io import BytesIO
from typing import Any
from uuid import UUID, uuid4

import pytest
import structlog
from django.db import DatabaseError, OperationalError, close_old_connections, connection
from django.db.backends.utils import CursorWrapper
from django.test import Client
from pytest_django import Settings
from structlog.contextvars import get_contextvars

from ingest import doorbell, inbox
from ingest.models import ConflictingDelivery, RejectedDelivery, Webhook
from ingest.views import BODY_BYTES_MAX
from ledger.models import Payment
from tests.concurrency import run_concurrently
from tests.factories import MIDNIGHT_IN_MOSCOW, ROMASHKA, VASILEK, make_webhook, payment_body, terms

PATH = "/api/webhook/bank/"
SUCCESS = (200, {"status": "success"})
ALREADY = (200, {"status": "already processed"})


@pytest.fixture(autouse=True)
def rings(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """The door's rings, counted here; tests/ingest/test_doorbell.py has the real one."""
    rung: list[None] = []
    monkeypatch.setattr(doorbell, "ring", lambda: rung.append(None))
    return rung


def deliver(delivery: bytes, **extra: Any) -> tuple[int, Any]:
    response = Client().post(PATH, delivery, content_type="application/json", **extra)
    assert response["Content-Type"] == "application/json"
    return response.status_code, json.loads(response.content)


@pytest.mark.django_db
def test_a_delivery_is_stored_as_told_with_its_bytes_as_received(rings: list[None]) -> None:
    told = terms(145_000_00)
    delivery = payment_body(told).replace(b", ", b" ,\n\t")

    assert deliver(delivery) == SUCCESS

    webhook = Webhook.objects.get()
    assert webhook.terms == told
    assert bytes(webhook.body) == delivery
    assert (webhook.status, webhook.attempts, webhook.next_attempt_at) == ("received", 0, None)
    assert len(rings) == 1
    assert not Payment.objects.exists()  # posting is the worker's


@pytest.mark.django_db
def test_once_it_is_parsed_each_line_about_a_delivery_names_its_operation() -> None:
    told = terms()
    deliver(payment_body(told))
    assert get_contextvars()["operation_id"] == str(told.operation_id)


@pytest.mark.django_db
def test_at_debug_the_door_says_what_became_of_a_delivery(caplog: pytest.LogCaptureFixture) -> None:
    told = terms()
    caplog.set_level(logging.DEBUG, "ingest.views")
    with structlog.testing.capture_logs() as lines:
        deliver(payment_body(told))
        deliver(payment_body(told))
    assert [(line["event"], line["stored"]) for line in lines] == [
        ("delivery stored", "new"),
        ("delivery stored", "duplicate"),
    ]


@pytest.mark.django_db
def test_a_delivery_costs_the_database_one_statement(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):
        assert deliver(payment_body(terms())) == SUCCESS


@pytest.mark.django_db
def test_the_inboxs_own_insert_writes_what_the_model_would() -> None:
    told = terms(145_000_01, document_date=MIDNIGHT_IN_MOSCOW.replace(microsecond=123_456))
    inbox.store(told, inbox.Delivery(b"\x00'%s\xff"))
    ours = Webhook.objects.get()
    alike = {field.attname: getattr(ours, field.attname) for field in Webhook._meta.concrete_fields}

    another = terms().operation_id
    Webhook.objects.create(
        operation_id=another,
        payer_inn=told.inn,
        amount_kopecks=told.amount_kopecks,
        document_number=told.document_number,
        document_date=told.document_date,
        body=b"\x00'%s\xff",
        received_at=ours.received_at,
    )

    models = Webhook.objects.values().get(operation_id=another)
    assert ours.terms == told
    assert {**models, "id": ours.id, "operation_id": told.operation_id} == alike


def test_no_default_of_the_inboxs_insert_is_made_anew_for_each_row() -> None:
    """It is computed once; a field with such a default has to be told."""
    with_default = [field for field in Webhook._meta.concrete_fields if field.has_default()]
    made_anew = {field.name for field in with_default if callable(field.default)}
    assert made_anew == {"received_at"}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("code", [1205, 1213, 2006, 2013])
def test_a_delivery_that_failed_leaves_nothing_behind_for_the_next_one(
    monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(*_: object) -> None:
        raise OperationalError(code, "not now")

    with monkeypatch.context() as patch:
        patch.setattr(CursorWrapper, "execute", fail)
        assert deliver(payment_body(terms()))[0] == 503

    assert deliver(payment_body(terms())) == SUCCESS
    assert connection.get_autocommit()
    assert Webhook.objects.count() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor == "sqlite", reason="a session that somebody can end")
def test_a_connection_that_was_ended_costs_one_503_at_most() -> None:
    assert deliver(payment_body(terms())) == SUCCESS
    session = connection.connection.thread_id()
    run_concurrently([lambda: _end(session)])

    assert deliver(payment_body(terms()))[0] == 503
    close_old_connections()  # as before each request; the test client leaves it out
    assert deliver(payment_body(terms())) == SUCCESS


def _end(session: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"KILL {session}")


@pytest.mark.django_db
@pytest.mark.parametrize(
    "operation_id",
    ["eccbc87e-4b5c-e2fe-2830-8fd9f2a7baf3", "0" * 32, "f" * 32, "ffffffff-ffff-0fff-2fff-ffffffffffff"],
)
def test_an_operation_id_of_any_version_and_variant_is_stored(operation_id: str) -> None:
    """MariaDB's own type for UUIDs refuses the first of these."""
    assert deliver(payment_body(terms(), operation_id=operation_id)) == SUCCESS
    assert Webhook.objects.get().operation_id == UUID(operation_id)


@pytest.mark.django_db
def test_the_content_type_is_not_insisted_on() -> None:
    response = Client().post(PATH, payment_body(terms()), content_type="text/plain")
    assert (response.status_code, json.loads(response.content)) == SUCCESS


@pytest.mark.django_db(transaction=True)
def test_a_repeated_delivery_is_counted_and_changes_nothing() -> None:
    told = terms()
    deliver(payment_body(told))

    assert deliver(payment_body(told)) == ALREADY
    assert (
        deliver(payment_body(told, operation_id=told.operation_id.hex.upper(), amount=100, extra="x"))
        == ALREADY
    )

    webhook = Webhook.objects.get()
    assert webhook.duplicate_deliveries.count() == 2
    assert webhook.conflicting_deliveries.count() == 0


@pytest.mark.django_db(transaction=True)
def test_other_content_under_the_same_operation_id_is_kept_as_a_conflict() -> None:
    told = terms(100_00)
    deliver(payment_body(told))
    other = payment_body(told, amount=200, payer_inn=VASILEK)

    assert deliver(other) == ALREADY

    assert Webhook.objects.get().terms == told
    conflict = ConflictingDelivery.objects.get()
    assert conflict.webhook == Webhook.objects.get()
    assert bytes(conflict.body) == other
    assert conflict.difference == "inn, amount_kopecks"


@pytest.mark.django_db
def test_an_invalid_delivery_is_answered_with_the_field_and_kept(rings: list[None]) -> None:
    delivery = payment_body(terms(), amount=-1)

    assert deliver(delivery) == (400, {"error": "amount: must be greater than zero"})

    kept = RejectedDelivery.objects.get()
    assert (bytes(kept.body), kept.reason) == (delivery, "amount: must be greater than zero")
    assert not Webhook.objects.exists()
    assert rings == []


@pytest.mark.django_db
def test_the_number_of_kept_deliveries_is_bounded(settings: Settings) -> None:
    settings.DELIVERY_RECORDS_MAX = 3
    for number in range(10):
        deliver(b"%d" % number)

    assert [bytes(kept.body) for kept in RejectedDelivery.objects.order_by("id")] == [b"7", b"8", b"9"]


@pytest.mark.django_db
def test_a_flood_of_one_source_evicts_no_delivery_of_another(settings: Settings) -> None:
    settings.DELIVERY_RECORDS_MAX = 3
    for number in range(2):
        inbox.record_rejected(inbox.Delivery(b"%d" % number, "tochka"), "amount: missing")
    for number in range(10):
        inbox.record_rejected(inbox.Delivery(b"%d" % number, "tbank"), "amount: missing")

    kept = RejectedDelivery.objects.order_by("id")
    assert [bytes(one.body) for one in kept.filter(source="tochka")] == [b"0", b"1"]
    assert [bytes(one.body) for one in kept.filter(source="tbank")] == [b"7", b"8", b"9"]


@pytest.mark.django_db
def test_kept_deliveries_are_counted_and_not_measured_by_their_keys(settings: Settings) -> None:
    """With auto_increment_increment=3, as on a cluster of three, each third key is used."""
    settings.DELIVERY_RECORDS_MAX = 3
    RejectedDelivery.objects.bulk_create(RejectedDelivery(id=3 * n, body=b"%d" % n) for n in range(1, 4))

    inbox.record_rejected(inbox.Delivery(b"4"), "amount: missing")

    assert [bytes(kept.body) for kept in RejectedDelivery.objects.order_by("id")] == [b"2", b"3", b"4"]


@pytest.mark.django_db
def test_a_large_bound_is_exceeded_by_a_few_of_a_hundred_at_most(settings: Settings) -> None:
    settings.DELIVERY_RECORDS_MAX = 1000
    RejectedDelivery.objects.bulk_create(RejectedDelivery(body=b"{}") for _ in range(1000))

    for _ in range(500):
        inbox.record_rejected(inbox.Delivery(b"{}"), "amount: missing")

    # A tenth part of the deliveries evicts: 200 in a row that don't are one case of a thousand million.
    assert 1000 <= RejectedDelivery.objects.count() < 1200


@pytest.mark.django_db
def test_open_conflicts_are_not_evicted_by_a_flood(settings: Settings) -> None:
    settings.DELIVERY_RECORDS_MAX = 1
    webhooks = [make_webhook() for _ in range(5)]
    for webhook in webhooks:
        inbox.store(terms(2_00, operation_id=webhook.operation_id), inbox.Delivery(b"%d" % webhook.pk))

    kept = ConflictingDelivery.objects.order_by("id").values_list("webhook", flat=True)
    assert list(kept) == [webhook.pk for webhook in webhooks]


@pytest.mark.django_db
def test_the_bytes_of_an_open_conflict_are_stored_once_and_again_after_its_resolution() -> None:
    webhook = make_webhook()
    told = terms(2_00, operation_id=webhook.operation_id)

    for _ in range(3):
        assert inbox.store(told, inbox.Delivery(b"the same")) == inbox.StoreResult.CONFLICT
    assert ConflictingDelivery.objects.count() == 1
    inbox.store(told, inbox.Delivery(b"the same", "tbank"))
    inbox.store(told, inbox.Delivery(b"other bytes"))
    assert ConflictingDelivery.objects.count() == 3

    ConflictingDelivery.objects.update(resolved_by=1)
    inbox.store(told, inbox.Delivery(b"the same"))
    assert ConflictingDelivery.objects.filter(resolved_by=None).count() == 1


@pytest.mark.django_db
def test_open_conflicts_of_one_webhook_are_bounded_and_the_log_names_those_left_out() -> None:
    webhook = make_webhook()
    with structlog.testing.capture_logs() as lines:
        for number in range(inbox.OPEN_CONFLICTS_MAX + 1):
            inbox.store(terms(2_00, operation_id=webhook.operation_id), inbox.Delivery(b"%d" % number))

    assert ConflictingDelivery.objects.count() == inbox.OPEN_CONFLICTS_MAX
    assert [line["kept"] for line in lines] == [True] * inbox.OPEN_CONFLICTS_MAX + [False]


@pytest.mark.parametrize("method", ["get", "put", "patch", "delete", "head", "options"])
def test_only_post_is_allowed(method: str) -> None:
    response = getattr(Client(), method)(PATH)
    assert (response.status_code, response["Allow"]) == (405, "POST")
    assert method == "head" or json.loads(response.content) == {"error": "use POST"}


@pytest.mark.django_db
def test_a_delivery_cut_off_on_its_way_is_asked_for_again() -> None:
    """A 400 would be final for a bank, and the payment lost."""
    delivery = payment_body(terms())
    response = Client().generic("POST", PATH, delivery, **{"wsgi.input": BytesIO(delivery[:60])})  # type: ignore[arg-type]

    assert (response.status_code, response["Retry-After"]) == (503, "5")
    assert json.loads(response.content) == {"error": "body: incomplete body, please send it again"}
    assert not RejectedDelivery.objects.exists()


def test_a_body_without_length_is_refused() -> None:
    response = Client().generic("POST", PATH, headers={"Transfer-Encoding": "chunked"})
    assert response.status_code == 411
    assert json.loads(response.content) == {"error": "Content-Length is required"}


@pytest.mark.django_db
def test_a_body_over_64_kib_is_refused_and_one_of_64_kib_is_not() -> None:
    delivery = payment_body(terms(), extra="@")
    padding = b"x" * (BODY_BYTES_MAX - len(delivery) + 1)

    assert deliver(delivery.replace(b"@", padding))[0] == 200
    too_long = (413, {"error": "body: must not be longer than 65536 bytes"})
    assert deliver(delivery.replace(b"@", padding + b"x")) == too_long
    assert Webhook.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_failing_database_is_a_503_that_asks_to_send_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise DatabaseError("disk full: /var/lib/mysql/secret")

    monkeypatch.setattr(connection, "cursor", fail)
    response = Client().post(PATH, payment_body(terms()), content_type="application/json")

    assert (response.status_code, response["Retry-After"]) == (503, "5")
    assert json.loads(response.content) == {"error": "temporarily unavailable, please try again"}


@pytest.mark.django_db
def test_a_bug_is_no_traceback_to_a_stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(inbox, "store", fail)
    assert deliver(payment_body(terms())) == (503, {"error": "temporarily unavailable, please try again"})


@pytest.mark.django_db(transaction=True)
def test_a_hundred_simultaneous_deliveries_of_one_operation_become_one_webhook() -> None:
    told = terms()
    workers = 20

    def five_times() -> list[tuple[int, Any]]:
        return [deliver(payment_body(told)) for _ in range(5)]

    answers = [answer for five in run_concurrently([five_times] * workers) for answer in five]

    assert answers.count(SUCCESS) == 1
    assert answers.count(ALREADY) == 99
    assert Webhook.objects.get().duplicate_deliveries.count() == 99


@pytest.mark.django_db(transaction=True)
def test_of_two_contents_at_the_same_moment_the_first_one_stays() -> None:
    told = terms(1_00)
    other = terms(2_00, inn=VASILEK, operation_id=told.operation_id)

    answers = run_concurrently(
        [lambda: deliver(payment_body(told)), lambda: deliver(payment_body(other))] * 5
    )

    assert answers.count(SUCCESS) == 1
    webhook = Webhook.objects.get()
    assert webhook.terms in (told, other)
    assert webhook.duplicate_deliveries.count() == 4
    assert 1 <= webhook.conflicting_deliveries.count() <= 5  # the same bytes are kept once, or at once


@pytest.mark.django_db
class TestWhereIsMyOperation:
    def ask(self, operation_id: object) -> tuple[int, Any]:
        response = Client().get(f"/api/operations/{operation_id}/")
        return response.status_code, json.loads(response.content)

    def test_received(self) -> None:
        webhook = make_webhook()
        status, answer = self.ask(webhook.operation_id)
        assert status == 200
        assert answer.pop("received_at")
        assert answer == {"operation_id": str(webhook.operation_id), "status": "received", "applied_at": None}

    @pytest.mark.parametrize("status", Webhook.Status.values)
    def test_in_any_status_and_spelling(self, status: str) -> None:
        webhook = make_webhook(terms(inn=ROMASHKA), status=status)
        assert self.ask(webhook.operation_id.hex.upper())[1]["status"] == status

    @pytest.mark.parametrize("unknown", [uuid4(), "PAY-328", "%00"])
    def test_unknown(self, unknown: object) -> None:
        assert self.ask(unknown) == (404, {"error": "Operation not found"})
