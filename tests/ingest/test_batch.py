"""Many arrivals in one transaction: every result committed, no arrival affected by another."""

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any
from uuid import UUID, uuid4

import pytest
import structlog
from django.db import DataError, OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from ingest import batch, delivery_records, inbox
from ingest.arrivals import store_arrival
from ingest.banks.events import BankReference, CreditEvent, IgnoredEvent, UnrecognizedEvent
from ingest.batch import store_batch
from ingest.inbox import Arrival, Delivery, Rejection, StoreResult
from ingest.models import (
    ConflictingDelivery,
    DuplicateDelivery,
    IgnoredDelivery,
    OperationAlias,
    RejectedDelivery,
    UnrecognizedDelivery,
    Webhook,
)
from ledger.terms import PaymentTerms
from tests.concurrency import requires_row_locks, run_concurrently
from tests.factories import make_webhook, terms

pytestmark = pytest.mark.django_db(transaction=True)
CREATED, DUPLICATE, CONFLICT = StoreResult


def arrival(payment: PaymentTerms | None = None, body: bytes = b"{}", source: str = "bank") -> Arrival:
    return Arrival(Delivery(body, source), CreditEvent(payment or terms()), body)


def test_batch_of_new_operations_costs_one_statement(django_assert_num_queries: Any) -> None:
    arrivals = [arrival(body=b"%d" % number) for number in range(100)]
    with django_assert_num_queries(1):
        assert store_batch(arrivals) == [CREATED] * 100

    stored = {webhook.operation_id: webhook for webhook in Webhook.objects.all()}
    for delivery, event, *_ in arrivals:
        assert isinstance(event, CreditEvent)
        webhook = stored[event.terms.operation_id]
        assert (webhook.terms, bytes(webhook.body)) == (event.terms, delivery.body)


def test_duplicates_and_conflicts_in_one_batch_keep_the_first() -> None:
    known, new = make_webhook().terms, terms(1_00)
    other = terms(2_00, operation_id=new.operation_id)
    conflicting = arrival(other, b"other")._replace(log_context={"request_id": "of-the-other"})
    arrivals = [
        *(arrival(new), arrival(known), arrival(new), conflicting, arrival()),
        arrival(new, source="tbank"),
    ]

    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as events:
        results = store_batch(arrivals)

    assert [event.get("request_id") for event in events] == ["of-the-other", None]
    assert results == [CREATED, DUPLICATE, DUPLICATE, CONFLICT, CREATED, CONFLICT]
    assert Webhook.objects.get(operation_id=new.operation_id).terms == new
    assert DuplicateDelivery.objects.count() == 2
    differences = ConflictingDelivery.objects.order_by("difference").values_list("difference", flat=True)
    assert list(differences) == ["amount_kopecks", "source"]


def test_all_kinds_in_one_batch() -> None:
    reference = BankReference(UUID(int=1), "T-1")
    delivery = Delivery(b"body", "tbank", "192.0.2.1")
    first = terms()
    results = store_batch(
        [
            Arrival(delivery, Rejection("amount: is missing"), b""),
            Arrival(delivery, IgnoredEvent("outgoing"), b""),
            Arrival(delivery, UnrecognizedEvent("unknown type"), b"payload"),
            Arrival(delivery, UnrecognizedEvent("unknown type"), b"payload"),
            Arrival(delivery, CreditEvent(first, reference), b""),
            Arrival(delivery, CreditEvent(replace(first, operation_id=uuid4()), reference), b""),
        ]
    )

    assert results == [None, None, None, None, CREATED, DUPLICATE]
    for model in (RejectedDelivery, IgnoredDelivery):
        row: Any = model.objects.get()
        assert (bytes(row.body), row.source, row.client_ip) == (b"body", "tbank", "192.0.2.1")
    assert UnrecognizedDelivery.objects.count() == OperationAlias.objects.count() == 1
    assert Webhook.objects.get().terms == first


def random_arrivals(rng: Random) -> list[Arrival]:
    """Return arrivals of all kinds in which operations, bank references and payloads meet again."""
    operations = [terms(operation_id=UUID(int=number + 1)) for number in range(4)]
    arrivals = []
    for _ in range(rng.randint(2, 12)):
        payment = rng.choice(operations)
        if rng.random() < 0.2:
            payment = replace(payment, amount_kopecks=7)
        number = rng.randrange(4)
        reference = rng.choice([None, BankReference(UUID(int=100 + number), f"T-{number}")])
        body, source = rng.choice([b"one", b"two"]), "tbank" if reference else "bank"
        event: Any = rng.choice(
            [
                *[CreditEvent(payment, reference)] * 4,
                UnrecognizedEvent("unknown type"),
                IgnoredEvent("outgoing"),
                Rejection("invalid"),
            ]
        )
        arrivals.append(Arrival(Delivery(body, source), event, body))
    return arrivals


def results_and_rows(*stores: Callable[[], Any]) -> Any:
    """Return the results, and what is stored without keys and times; roll back."""
    models: list[tuple[Any, list[str]]] = [
        (Webhook, ["operation_id", "amount_kopecks", "source", "body"]),
        (OperationAlias, ["alias", "operation_id"]),
        (DuplicateDelivery, ["webhook__operation_id", "source"]),
        (ConflictingDelivery, ["webhook__operation_id", "difference", "source", "body"]),
        (UnrecognizedDelivery, ["source", "digest", "body"]),
        (IgnoredDelivery, ["source", "body"]),
        (RejectedDelivery, ["source", "body"]),
    ]
    with transaction.atomic():
        results = [result for store in stores for result in store()]
        rows = [sorted(map(repr, model.objects.values_list(*columns))) for model, columns in models]
        transaction.set_rollback(True)
    return results, rows


@pytest.mark.parametrize("seeds", [range(10), pytest.param(range(10, 60), marks=pytest.mark.long)], ids=str)
def test_batches_store_what_single_deliveries_store(seeds: range) -> None:
    for seed in seeds:
        arrivals = random_arrivals(Random(seed))
        expected = results_and_rows(lambda: [store_arrival(one) for one in arrivals])  # noqa: B023
        halves = arrivals[: len(arrivals) // 2], arrivals[len(arrivals) // 2 :]
        assert results_and_rows(partial(store_batch, arrivals)) == expected, seed
        assert results_and_rows(*(partial(store_batch, half) for half in halves)) == expected, seed


def test_statements_do_not_grow_with_the_batch() -> None:
    def batch_of(count: int) -> int:
        arrivals: list[Arrival] = []
        for number in range(count):
            reference = BankReference(uuid4(), f"T-{number}")
            body = b"%d of %d" % (number, count)
            events = CreditEvent(terms(), reference), UnrecognizedEvent("unknown type")
            arrivals += [Arrival(Delivery(body, "tbank"), event, body) for event in events]
        with CaptureQueriesContext(connection) as queries:
            assert store_batch(arrivals) == [CREATED, None] * count
        return len(queries)

    assert batch_of(20) == batch_of(2)


@pytest.mark.parametrize("position", [0, 6, 12])
def test_refused_row_fails_alone(position: int) -> None:
    arrivals = [arrival() for _ in range(13)]
    arrivals[position] = poison()
    results = store_batch(arrivals)

    assert isinstance(results[position], Exception)
    assert results[:position] + results[position + 1 :] == [CREATED] * 12
    assert Webhook.objects.count() == 12


def poison() -> Arrival:
    """Return an arrival that the table's constraint on amounts refuses."""
    return arrival(terms(-1))


def test_exception_while_a_row_is_prepared_fails_alone() -> None:
    payment = terms(document_date="no date")  # type: ignore[arg-type]
    results = store_batch([arrival(), arrival(payment), arrival()])

    assert [type(result) is StoreResult for result in results] == [True, False, True]


def test_lost_connection_fails_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fail_inserts(monkeypatch, OperationalError(2013, "lost connection"), times=100)
    monkeypatch.setattr(batch, "is_transient", lambda exc: isinstance(exc, OperationalError))

    results = store_batch([arrival() for _ in range(8)])

    assert [type(result) for result in results] == [OperationalError] * 8
    assert len(calls) == 1


@requires_row_locks
@pytest.mark.parametrize("code", [1213, 1020, 3101])
def test_transaction_that_the_server_rolled_back_runs_again(
    monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    fail_inserts(monkeypatch, OperationalError(code, "try restarting transaction"), times=2)
    assert store_batch([arrival(), arrival()]) == [CREATED, CREATED]
    assert store_batch([arrival()]) == [CREATED]


def fail_inserts(monkeypatch: pytest.MonkeyPatch, exc: Exception, times: int) -> list[None]:
    calls: list[None] = []
    insert = inbox.insert_webhooks

    def fail(rows: Any) -> None:
        calls.append(None)
        if len(calls) <= times:
            raise exc
        insert(rows)

    monkeypatch.setattr(batch, "insert_webhooks", fail)
    monkeypatch.setattr(inbox, "insert_webhooks", fail)
    return calls


def test_eviction_bounds_the_records_of_batches(settings: Settings) -> None:
    settings.DELIVERY_RECORDS_MAX = 10
    for _ in range(5):
        store_batch([Arrival(Delivery(b""), Rejection("invalid"), b"")] * 8)
    assert RejectedDelivery.objects.count() == 10


def test_eviction_on_sqlite_has_the_write_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the commit a worker would have it, and the eviction would be skipped each time."""
    in_transaction: list[bool] = []
    monkeypatch.setattr(
        delivery_records, "evict", lambda rows: in_transaction.append(connection.in_atomic_block)
    )
    store_batch([Arrival(Delivery(b""), Rejection("invalid"), b"")] * 2)
    assert in_transaction == [connection.vendor == "sqlite"]


def test_concurrent_batches_with_common_operations_store_each_once() -> None:
    payments = [terms() for _ in range(40)]
    results: list[Any] = []
    lock = threading.Lock()

    def storing(offset: int) -> Callable[[], None]:
        def run() -> None:
            for start in range(0, 40, 10):
                rotated = payments[offset:] + payments[:offset]
                got = store_batch([arrival(payment) for payment in rotated[start : start + 10]])
                with lock:
                    results.extend(got)

        return run

    run_concurrently([storing(offset) for offset in (0, 5, 10, 15)])

    assert not [result for result in results if isinstance(result, Exception)]
    assert Webhook.objects.count() == results.count(CREATED) == 40
    assert DuplicateDelivery.objects.count() == results.count(DUPLICATE) == 120


@requires_row_locks
def test_batch_waits_for_no_worker_that_locks_its_webhook() -> None:
    webhook = make_webhook()
    locked, done = threading.Event(), threading.Event()

    def worker() -> None:
        connection.set_autocommit(False)
        list(Webhook.objects.select_for_update().filter(pk=webhook.pk))
        locked.set()
        assert done.wait(30)
        connection.rollback()
        connection.set_autocommit(True)

    def endpoint() -> None:
        assert locked.wait(30)
        assert store_batch([arrival(webhook.terms), arrival()]) == [DUPLICATE, CREATED]
        done.set()

    run_concurrently([worker, endpoint])


def test_refusal_of_the_database_is_the_result_itself() -> None:
    result = store_batch([arrival(terms(document_number="x" * 300)), arrival()])
    if connection.vendor == "sqlite":  # knows no lengths
        assert result == [CREATED, CREATED]
    else:
        assert isinstance(result[0], DataError)
        assert result[1] == CREATED
