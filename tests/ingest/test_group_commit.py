"""Group commit: an answer means a commit, and no delivery waits longer than its transaction takes."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from django.db import OperationalError
from pytest_django import Settings

from ingest import group_commit as module
from ingest.banks.events import CreditEvent
from ingest.batch import store_batch
from ingest.exceptions import Overloaded
from ingest.group_commit import GroupCommit
from ingest.inbox import Arrival, Delivery, StoreResult
from ingest.models import DuplicateDelivery, Webhook
from ledger.terms import PaymentTerms
from tests.factories import terms

pytestmark = pytest.mark.django_db(transaction=True)


class Gate:
    """Holds the writer in its first batch until it is opened; counts the sizes of batches."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()
        self.sizes: list[int] = []

    def store_batch(self, arrivals: Sequence[Arrival]) -> Any:
        self.sizes.append(len(arrivals))
        self.entered.set()
        assert self.opened.wait(30)
        return store_batch(arrivals)


@pytest.fixture
def writer() -> Iterator[GroupCommit]:
    writer = GroupCommit()
    yield writer
    writer.close()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate()
    monkeypatch.setattr(module, "store_batch", gate.store_batch)
    yield gate
    gate.opened.set()


def arrival(payment: PaymentTerms | None = None, body: bytes = b"{}") -> Arrival:
    return Arrival(Delivery(body), CreditEvent(payment or terms()), body)


def test_what_arrives_during_a_commit_is_one_batch(writer: GroupCommit, gate: Gate) -> None:
    async def deliver() -> Any:
        first = asyncio.create_task(writer.store(arrival()))
        await asyncio.to_thread(gate.entered.wait, 30)
        others = [asyncio.create_task(writer.store(arrival())) for _ in range(50)]
        await asyncio.sleep(0)
        assert not first.done()
        gate.opened.set()
        return await asyncio.gather(first, *others)

    assert asyncio.run(deliver()) == [StoreResult.CREATED] * 51
    assert gate.sizes == [1, 50]
    assert Webhook.objects.count() == 51


def test_batch_is_bounded_by_number_and_bytes(
    writer: GroupCommit, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_DELIVERIES_MAX", 4)
    monkeypatch.setattr(module, "BATCH_BYTES_MAX", 100)

    async def deliver() -> None:
        bodies = [b"", *[b""] * 5, *[b"x" * 60] * 3]
        tasks = []
        for body in bodies:
            tasks.append(asyncio.create_task(writer.store(arrival(body=body))))
            await asyncio.sleep(0)
            if len(tasks) == 1:
                await asyncio.to_thread(gate.entered.wait, 30)
        gate.opened.set()
        await asyncio.gather(*tasks)

    asyncio.run(deliver())
    assert gate.sizes == [1, 4, 3, 1]


def test_duplicates_of_one_operation_at_once_create_it_once(writer: GroupCommit) -> None:
    payment = terms()

    async def deliver() -> Any:
        return await asyncio.gather(*(writer.store(arrival(payment)) for _ in range(100)))

    results = asyncio.run(deliver())
    assert (results.count(StoreResult.CREATED), results.count(StoreResult.DUPLICATE)) == (1, 99)
    assert (Webhook.objects.count(), DuplicateDelivery.objects.count()) == (1, 99)


def test_too_many_waiting_deliveries_are_refused_at_once(
    writer: GroupCommit, gate: Gate, settings: Settings
) -> None:
    settings.WAITING_DELIVERIES_MAX = 3
    settings.WAITING_BYTES_MAX = 100

    async def deliver() -> None:
        waiting = [asyncio.create_task(writer.store(arrival(body=b"x" * 40))) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await writer.store(arrival(body=b"x" * 40))
        waiting.append(asyncio.create_task(writer.store(arrival(body=b""))))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await writer.store(arrival(body=b""))
        gate.opened.set()
        await asyncio.gather(*waiting)
        for _ in range(10):  # the places are free again
            await writer.store(arrival(body=b"x" * 100))

    asyncio.run(deliver())


def test_delivery_that_waits_too_long_is_given_up(
    writer: GroupCommit, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STORE_SECONDS_MAX", 0.05)

    async def deliver() -> None:
        first = asyncio.create_task(writer.store(arrival()))
        await asyncio.to_thread(gate.entered.wait, 30)
        second = asyncio.create_task(writer.store(arrival()))
        assert [type(one) for one in await asyncio.gather(first, second, return_exceptions=True)] == [
            TimeoutError
        ] * 2

    asyncio.run(deliver())
    gate.opened.set()
    writer.close()
    assert gate.sizes == [1]  # the second was never begun
    assert Webhook.objects.count() == 1


def test_hung_up_request_does_not_affect_its_neighbours(writer: GroupCommit, gate: Gate) -> None:
    async def deliver() -> Any:
        first = asyncio.create_task(writer.store(arrival()))
        await asyncio.to_thread(gate.entered.wait, 30)
        others = [asyncio.create_task(writer.store(arrival())) for _ in range(3)]
        await asyncio.sleep(0)
        first.cancel()
        others[1].cancel()
        await asyncio.sleep(0)
        gate.opened.set()
        return await asyncio.gather(first, *others, return_exceptions=True)

    results = asyncio.run(deliver())
    assert [isinstance(result, asyncio.CancelledError) for result in results] == [True, False, True, False]


def test_failed_commit_is_no_answer_and_the_next_succeeds(
    writer: GroupCommit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise OperationalError(2013, "lost connection")

    async def deliver() -> Any:
        return await asyncio.gather(*(writer.store(arrival()) for _ in range(5)), return_exceptions=True)

    with monkeypatch.context() as patch:
        patch.setattr("ingest.batch.insert_webhooks", fail)
        patch.setattr("ingest.inbox.insert_webhooks", fail)
        results = asyncio.run(deliver())
        assert [type(result) for result in results] == [OperationalError] * 5
    assert not Webhook.objects.exists()
    assert asyncio.run(deliver()) == [StoreResult.CREATED] * 5


def test_exception_outside_of_the_database_loses_no_future(
    writer: GroupCommit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise MemoryError

    async def deliver() -> Any:
        return await asyncio.gather(*(writer.store(arrival()) for _ in range(3)), return_exceptions=True)

    with monkeypatch.context() as patch:
        patch.setattr(module, "store_batch", fail)
        assert [type(result) for result in asyncio.run(deliver())] == [MemoryError] * 3
    assert asyncio.run(deliver()) == [StoreResult.CREATED] * 3


def test_dead_thread_is_replaced(writer: GroupCommit) -> None:
    asyncio.run(writer.store(arrival()))
    writer.close()
    assert asyncio.run(writer.store(arrival())) == StoreResult.CREATED
