import json
from collections.abc import Callable
from io import BytesIO
from types import ModuleType
from typing import Any
from uuid import UUID, uuid4

import pytest
import structlog
from django.db import DatabaseError, OperationalError, close_old_connections, connection
from django.db.backends.utils import CursorWrapper
from django.test import Client
from pytest_django import Settings
from structlog.contextvars import get_contextvars

from ingest import doorbell, inbox, views
from ingest.models import ConflictingDelivery, RejectedDelivery, Webhook
from ingest.payment_fingerprint import payment_fingerprint
from ingest.views import BODY_BYTES_MAX
from ledger.models import Payment
from tests.concurrency import run_concurrently
from tests.factories import MIDNIGHT_IN_MOSCOW, ROMASHKA, VASILEK, make_webhook, payment_body, terms

PATH = "/api/webhook/bank/"
SUCCESS = (200, {"status": "success"})
ALREADY = (200, {"status": "already processed"})


@pytest.fixture(autouse=True)
def rings(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Replace the doorbell, and return the list of its rings."""
    rings: list[None] = []
    monkeypatch.setattr(doorbell, "ring", lambda: rings.append(None))
    return rings


def deliver(delivery: bytes, **extra: Any) -> tuple[int, Any]:
    response = Client().post(PATH, delivery, content_type="application/json", **extra)
    assert response["Content-Type"] == "application/json"
    return response.status_code, json.loads(response.content)


@pytest.mark.django_db
def test_delivery_is_stored_with_its_terms_and_raw_body(rings: list[None]) -> None:
    payment = terms(145_000_00)
    delivery = payment_body(payment).replace(b", ", b" ,\n\t")

    assert deliver(delivery) == SUCCESS

    webhook = Webhook.objects.get()
    assert webhook.terms == payment
    assert bytes(webhook.body) == delivery
    assert (webhook.status, webhook.attempts, webhook.next_attempt_at) == ("received", 0, None)
    assert len(rings) == 1
    assert not Payment.objects.exists()  # only the worker posts


@pytest.mark.django_db
def test_log_context_has_operation_id_after_parsing() -> None:
    payment = terms()
    deliver(payment_body(payment))
    assert get_contextvars()["operation_id"] == str(payment.operation_id)


@pytest.mark.django_db
def test_debug_log_has_store_result(log_debug: Callable[[ModuleType], None]) -> None:
    payment = terms()
    log_debug(views)
    with structlog.testing.capture_logs() as events:
        deliver(payment_body(payment))
        deliver(payment_body(payment))
    assert [(event["event"], event["result"]) for event in events] == [
        ("delivery stored", "created"),
        ("delivery stored", "duplicate"),
    ]


@pytest.mark.django_db
def test_delivery_costs_one_statement(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):
        assert deliver(payment_body(terms())) == SUCCESS


@pytest.mark.django_db
def test_prepared_insert_writes_the_same_row_as_the_model() -> None:
    payment = terms(145_000_01, document_date=MIDNIGHT_IN_MOSCOW.replace(microsecond=123_456))
    inbox.store(payment, inbox.Delivery(b"\x00'%s\xff"))
    inserted = Webhook.objects.get()
    values = {field.attname: getattr(inserted, field.attname) for field in Webhook._meta.concrete_fields}

    other_id = terms().operation_id
    Webhook.objects.create(
        operation_id=other_id,
        payer_inn=payment.inn,
        amount_kopecks=payment.amount_kopecks,
        document_number=payment.document_number,
        document_date=payment.document_date,
        body=b"\x00'%s\xff",
        received_at=inserted.received_at,
        payment_fingerprint=payment_fingerprint(payment),
    )

    created = Webhook.objects.values().get(operation_id=other_id)
    assert inserted.terms == payment
    assert {**created, "id": inserted.id, "operation_id": payment.operation_id} == values


def test_prepared_insert_has_no_per_row_defaults() -> None:
    """Defaults are computed once, so a field with a callable default must be passed to the INSERT."""
    with_default = [field for field in Webhook._meta.concrete_fields if field.has_default()]
    callable_defaults = {field.name for field in with_default if callable(field.default)}
    assert callable_defaults == {"received_at"}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("code", [1205, 1213, 2006, 2013])
def test_failed_delivery_does_not_affect_the_next_one(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def fail(*_: object) -> None:
        raise OperationalError(code, "not now")

    with monkeypatch.context() as patch:
        patch.setattr(CursorWrapper, "execute", fail)
        assert deliver(payment_body(terms()))[0] == 503

    assert deliver(payment_body(terms())) == SUCCESS
    assert connection.get_autocommit()
    assert Webhook.objects.count() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor == "sqlite", reason="no sessions to kill")
def test_killed_connection_costs_at_most_one_503() -> None:
    assert deliver(payment_body(terms())) == SUCCESS
    session = connection.connection.thread_id()
    run_concurrently([lambda: _kill(session)])

    assert deliver(payment_body(terms()))[0] == 503
    close_old_connections()  # as before each request; the test client doesn't
    assert deliver(payment_body(terms())) == SUCCESS


def _kill(session: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"KILL {session}")


@pytest.mark.django_db
@pytest.mark.parametrize(
    "operation_id",
    ["eccbc87e-4b5c-e2fe-2830-8fd9f2a7baf3", "0" * 32, "f" * 32, "ffffffff-ffff-0fff-2fff-ffffffffffff"],
)
def test_operation_id_of_any_uuid_version_is_stored(operation_id: str) -> None:
    """MariaDB's UUID type refuses the first of these."""
    assert deliver(payment_body(terms(), operation_id=operation_id)) == SUCCESS
    assert Webhook.objects.get().operation_id == UUID(operation_id)


@pytest.mark.django_db
def test_content_type_is_not_checked() -> None:
    response = Client().post(PATH, payment_body(terms()), content_type="text/plain")
    assert (response.status_code, json.loads(response.content)) == SUCCESS


@pytest.mark.django_db(transaction=True)
def test_duplicate_delivery_is_recorded_and_changes_nothing() -> None:
    payment = terms()
    deliver(payment_body(payment))

    assert deliver(payment_body(payment)) == ALREADY
    assert (
        deliver(payment_body(payment, operation_id=payment.operation_id.hex.upper(), amount=100, extra="x"))
        == ALREADY
    )

    webhook = Webhook.objects.get()
    assert webhook.duplicate_deliveries.count() == 2
    assert webhook.conflicting_deliveries.count() == 0


@pytest.mark.django_db(transaction=True)
def test_same_operation_id_with_other_content_is_a_conflict() -> None:
    payment = terms(100_00)
    deliver(payment_body(payment))
    other = payment_body(payment, amount=200, payer_inn=VASILEK)

    assert deliver(other) == ALREADY

    assert Webhook.objects.get().terms == payment
    conflict = ConflictingDelivery.objects.get()
    assert conflict.webhook == Webhook.objects.get()
    assert bytes(conflict.body) == other
    assert conflict.difference == "inn, amount_kopecks"


@pytest.mark.django_db
def test_invalid_delivery_is_answered_400_and_recorded(rings: list[None]) -> None:
    delivery = payment_body(terms(), amount=-1)

    assert deliver(delivery) == (400, {"error": "amount: must be greater than zero"})

    recorded = RejectedDelivery.objects.get()
    assert (bytes(recorded.body), recorded.reason) == (delivery, "amount: must be greater than zero")
    assert not Webhook.objects.exists()
    assert rings == []


@pytest.mark.django_db
def test_number_of_delivery_records_is_bounded(settings: Settings) -> None:
    settings.DELIVERY_RECORDS_MAX = 3
    for number in range(10):
        deliver(b"%d" % number)

    assert [bytes(each.body) for each in RejectedDelivery.objects.order_by("id")] == [b"7", b"8", b"9"]


@pytest.mark.django_db
def test_flood_from_one_source_evicts_no_record_of_another(settings: Settings) -> None:
    settings.DELIVERY_RECORDS_MAX = 3
    for number in range(2):
        inbox.record_rejected(inbox.Delivery(b"%d" % number, "tochka"), "amount: missing")
    for number in range(10):
        inbox.record_rejected(inbox.Delivery(b"%d" % number, "tbank"), "amount: missing")

    recorded = RejectedDelivery.objects.order_by("id")
    assert [bytes(one.body) for one in recorded.filter(source="tochka")] == [b"0", b"1"]
    assert [bytes(one.body) for one in recorded.filter(source="tbank")] == [b"7", b"8", b"9"]


@pytest.mark.django_db
def test_eviction_counts_rows_when_keys_have_gaps(settings: Settings) -> None:
    """With auto_increment_increment=3, as on a cluster of three servers, only every third key is used."""
    settings.DELIVERY_RECORDS_MAX = 3
    RejectedDelivery.objects.bulk_create(RejectedDelivery(id=3 * n, body=b"%d" % n) for n in range(1, 4))

    inbox.record_rejected(inbox.Delivery(b"4"), "amount: missing")

    assert [bytes(each.body) for each in RejectedDelivery.objects.order_by("id")] == [b"2", b"3", b"4"]


@pytest.mark.django_db
def test_large_bound_is_exceeded_by_a_few_percent_at_most(settings: Settings) -> None:
    settings.DELIVERY_RECORDS_MAX = 1000
    RejectedDelivery.objects.bulk_create(RejectedDelivery(body=b"{}") for _ in range(1000))

    for _ in range(500):
        inbox.record_rejected(inbox.Delivery(b"{}"), "amount: missing")

    # One save in ten evicts: the probability that 200 in a row do not is one in a thousand million.
    assert 1000 <= RejectedDelivery.objects.count() < 1200


@pytest.mark.django_db
def test_flood_evicts_no_open_conflict(settings: Settings) -> None:
    settings.DELIVERY_RECORDS_MAX = 1
    webhooks = [make_webhook() for _ in range(5)]
    for webhook in webhooks:
        inbox.store(terms(2_00, operation_id=webhook.operation_id), inbox.Delivery(b"%d" % webhook.pk))

    recorded = ConflictingDelivery.objects.order_by("id").values_list("webhook", flat=True)
    assert list(recorded) == [webhook.pk for webhook in webhooks]


@pytest.mark.django_db
def test_conflicting_body_is_stored_once_while_open_and_again_after_resolution() -> None:
    webhook = make_webhook()
    payment = terms(2_00, operation_id=webhook.operation_id)

    for _ in range(3):
        assert inbox.store(payment, inbox.Delivery(b"the same")) == inbox.StoreResult.CONFLICT
    assert ConflictingDelivery.objects.count() == 1
    inbox.store(payment, inbox.Delivery(b"the same", "tbank"))
    inbox.store(payment, inbox.Delivery(b"other bytes"))
    assert ConflictingDelivery.objects.count() == 3

    ConflictingDelivery.objects.update(resolved_by=1)
    inbox.store(payment, inbox.Delivery(b"the same"))
    assert ConflictingDelivery.objects.filter(resolved_by=None).count() == 1


@pytest.mark.django_db
def test_open_conflicts_per_webhook_are_bounded_and_the_rest_logged() -> None:
    webhook = make_webhook()
    with structlog.testing.capture_logs() as events:
        for number in range(inbox.OPEN_CONFLICTS_MAX + 1):
            inbox.store(terms(2_00, operation_id=webhook.operation_id), inbox.Delivery(b"%d" % number))

    assert ConflictingDelivery.objects.count() == inbox.OPEN_CONFLICTS_MAX
    assert [event["kept"] for event in events] == [True] * inbox.OPEN_CONFLICTS_MAX + [False]


@pytest.mark.parametrize("method", ["get", "put", "patch", "delete", "head", "options"])
def test_only_post_is_allowed(method: str) -> None:
    response = getattr(Client(), method)(PATH)
    assert (response.status_code, response["Allow"]) == (405, "POST")
    assert method == "head" or json.loads(response.content) == {"error": "use POST"}


@pytest.mark.django_db
def test_truncated_body_is_answered_503() -> None:
    """After a 400 the bank would not retry, and the payment would be lost."""
    delivery = payment_body(terms())
    response = Client().generic("POST", PATH, delivery, **{"wsgi.input": BytesIO(delivery[:60])})  # type: ignore[arg-type]

    assert (response.status_code, response["Retry-After"]) == (503, "5")
    assert json.loads(response.content) == {"error": "body: arrived incomplete, please send it again"}
    assert not RejectedDelivery.objects.exists()


def test_body_without_content_length_is_refused() -> None:
    response = Client().generic("POST", PATH, headers={"Transfer-Encoding": "chunked"})
    assert response.status_code == 411
    assert json.loads(response.content) == {"error": "Content-Length is required"}


@pytest.mark.django_db
def test_body_limit_is_64_kib() -> None:
    delivery = payment_body(terms(), extra="@")
    padding = b"x" * (BODY_BYTES_MAX - len(delivery) + 1)

    assert deliver(delivery.replace(b"@", padding))[0] == 200
    too_long = (413, {"error": "body: must not be longer than 65536 bytes"})
    assert deliver(delivery.replace(b"@", padding + b"x")) == too_long
    assert Webhook.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_database_error_is_answered_503_with_retry_after(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise DatabaseError("disk full: /var/lib/mysql/secret")

    monkeypatch.setattr(connection, "cursor", fail)
    response = Client().post(PATH, payment_body(terms()), content_type="application/json")

    assert (response.status_code, response["Retry-After"]) == (503, "5")
    assert json.loads(response.content) == {"error": "temporarily unavailable, please try again"}


@pytest.mark.django_db
def test_delivery_that_is_not_stored_in_time_is_answered_503(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wait(*_: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(views, "_receive", wait)
    assert deliver(payment_body(terms())) == (503, {"error": "temporarily unavailable, please try again"})
    assert "delivery not stored in time" in caplog.text


@pytest.mark.django_db
def test_unexpected_exception_is_not_disclosed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(inbox, "store", fail)
    assert deliver(payment_body(terms())) == (503, {"error": "temporarily unavailable, please try again"})


@pytest.mark.django_db(transaction=True)
def test_hundred_concurrent_deliveries_of_one_operation_store_one_webhook() -> None:
    payment = terms()
    workers = 20

    def five_times() -> list[tuple[int, Any]]:
        return [deliver(payment_body(payment)) for _ in range(5)]

    answers = [answer for five in run_concurrently([five_times] * workers) for answer in five]

    assert answers.count(SUCCESS) == 1
    assert answers.count(ALREADY) == 99
    assert Webhook.objects.get().duplicate_deliveries.count() == 99


@pytest.mark.django_db(transaction=True)
def test_concurrent_deliveries_with_different_content_store_the_first() -> None:
    payment = terms(1_00)
    other = terms(2_00, inn=VASILEK, operation_id=payment.operation_id)

    answers = run_concurrently(
        [lambda: deliver(payment_body(payment)), lambda: deliver(payment_body(other))] * 5
    )

    assert answers.count(SUCCESS) == 1
    webhook = Webhook.objects.get()
    assert webhook.terms in (payment, other)
    assert webhook.duplicate_deliveries.count() == 4
    # Equal bytes are stored once, or more often if concurrent.
    assert 1 <= webhook.conflicting_deliveries.count() <= 5


@pytest.mark.django_db
class TestOperationStatus:
    def get(self, operation_id: object) -> tuple[int, Any]:
        response = Client().get(f"/api/operations/{operation_id}/")
        return response.status_code, json.loads(response.content)

    def test_received(self) -> None:
        webhook = make_webhook()
        status, body = self.get(webhook.operation_id)
        assert status == 200
        assert body.pop("received_at")
        assert body == {"operation_id": str(webhook.operation_id), "status": "received", "applied_at": None}

    @pytest.mark.parametrize("status", Webhook.Status.values)
    def test_in_any_status_and_spelling(self, status: str) -> None:
        webhook = make_webhook(terms(inn=ROMASHKA), status=status)
        assert self.get(webhook.operation_id.hex.upper())[1]["status"] == status

    @pytest.mark.parametrize("unknown", [uuid4(), "PAY-328", "%00"])
    def test_unknown(self, unknown: object) -> None:
        assert self.get(unknown) == (404, {"error": "Operation not found"})
