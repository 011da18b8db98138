"""Fair batches: no organization waits for another one's backlog or lock."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError, connection, transaction
from django.db.models import QuerySet

from core.db import transactions
from ingest import operator_actions
from ingest.models import OperatorAction, Webhook
from ledger.models import BalanceLog, Organization
from tests.concurrency import requires_row_locks, run_concurrently
from tests.factories import (
    IVANOV,
    MIDNIGHT_IN_MOSCOW,
    ROMASHKA,
    SAMPLE,
    VASILEK,
    balances,
    make_organizations,
    make_webhook,
    terms,
)
from tests.query_plans import update_statistics
from tests.row_counts import count_rows_read, count_vm_instructions
from worker import applying, claiming
from worker.applying import apply_batch

pytestmark = pytest.mark.django_db(transaction=True)
BATCH = 20  # webhooks


@pytest.fixture(autouse=True)
def _new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claiming, "ROUND_ROBIN", claiming.RoundRobin())


def queue(*inns: str) -> None:
    Webhook.objects.bulk_create(
        [
            Webhook(
                operation_id=uuid4(),
                payer_inn=inn,
                amount_kopecks=1_00,
                document_number="1",
                document_date=MIDNIGHT_IN_MOSCOW,
                body=b"{}",
            )
            for inn in inns
        ],
        batch_size=1000,
    )


def is_applied(webhook: Webhook) -> bool:
    return Webhook.objects.filter(pk=webhook.pk, status=Webhook.Status.APPLIED).exists()


def batches_until_applied(webhook: Webhook) -> int:
    batches = 0
    while not is_applied(webhook):
        assert apply_batch(BATCH) == BATCH
        batches += 1
    return batches


@contextmanager
def locked(inn: str) -> Iterator[None]:
    """Lock the organization in another session."""
    is_locked, is_over = Event(), Event()

    def lock() -> None:
        try:
            with transaction.atomic():
                Organization.objects.select_for_update().get(inn=inn)
                is_locked.set()
                is_over.wait(60)
        finally:
            connection.close()

    thread = Thread(target=lock)
    thread.start()
    assert is_locked.wait(30)
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def applied_by_inn() -> dict[str, int]:
    """Return the number of applied webhooks by INN; each is worth a ruble."""
    return {inn: kopecks // 1_00 for inn, kopecks in balances().items()}


def test_backlog_gets_half_of_batch_if_others_fill_the_rest() -> None:
    queue(*[ROMASHKA] * 3 * BATCH, *[VASILEK] * 3, *[IVANOV] * BATCH)

    assert apply_batch(BATCH) == BATCH
    assert applied_by_inn() == {ROMASHKA: 10, VASILEK: 3, IVANOV: 7}


def test_backlog_gets_remainder_of_batch() -> None:
    queue(*[ROMASHKA] * 3 * BATCH, *[VASILEK] * 3)

    assert apply_batch(BATCH) == BATCH
    assert applied_by_inn() == {ROMASHKA: 17, VASILEK: 3}


@pytest.mark.parametrize("last", [None, SAMPLE, ROMASHKA, VASILEK])
def test_backlog_truncated_by_query_gets_full_share(last: str | None) -> None:
    """The first query returns one webhook of the second organization."""
    claiming.ROUND_ROBIN.last_inn = last
    queue(*[ROMASHKA] * BATCH, *[VASILEK] * BATCH)

    assert apply_batch(BATCH) == BATCH
    assert applied_by_inn() == {ROMASHKA: 10, VASILEK: 10}


def test_every_organization_is_served_within_one_cycle() -> None:
    """A batch has two organizations; the last ones wait for six batches."""
    busy = [f"77{number:08}" for number in range(12)]
    make_organizations(*busy)
    queue(*busy * BATCH)
    small = make_webhook(terms(inn=VASILEK))

    assert batches_until_applied(small) <= 7
    assert all(applied_by_inn().values())


def test_small_organization_behind_two_backlogs_waits_one_batch() -> None:
    queue(*[ROMASHKA] * 10 * BATCH, *[SAMPLE] * 10 * BATCH)
    small = make_webhook(terms(inn=VASILEK))
    queue(*[SAMPLE] * 10 * BATCH)

    assert batches_until_applied(small) <= 2


def test_organizations_with_one_webhook_each_fill_batch() -> None:
    inns = [f"77{number:08}" for number in range(2 * BATCH)]
    queue(*inns)

    assert [apply_batch(BATCH) for _ in range(3)] == [BATCH, BATCH, 0]


def test_new_process_starts_with_oldest_webhook() -> None:
    queue(*[VASILEK] * BATCH, *[ROMASHKA] * BATCH, *[SAMPLE] * BATCH)

    assert apply_batch(BATCH) == BATCH
    assert applied_by_inn() == {VASILEK: 10, SAMPLE: 10}


def test_webhooks_of_organization_are_applied_in_key_order() -> None:
    queue(*[ROMASHKA, VASILEK, VASILEK, IVANOV] * BATCH)
    while apply_batch(BATCH):
        pass

    for inn in (ROMASHKA, VASILEK, IVANOV):
        entries = BalanceLog.objects.filter(organization__inn=inn).order_by("seq")
        webhooks = Webhook.objects.filter(payer_inn=inn).order_by("id")
        operation_ids = webhooks.values_list("operation_id", flat=True)
        assert list(entries.values_list("payment__operation_id", flat=True)) == list(operation_ids)


def test_organization_with_transient_errors_does_not_stall_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A foreign session may lock the end of its log. The retry continues after that organization."""
    queue(*[ROMASHKA] * BATCH, *[VASILEK] * BATCH, *[IVANOV] * BATCH)
    real_post = applying.post

    def post(payments: QuerySet[Any], organizations: Any) -> None:
        if ROMASHKA in organizations:
            raise OperationalError(1205, "database is locked")
        real_post(payments, organizations)

    monkeypatch.setattr(transactions, "BACKOFF_SECONDS", 0)
    monkeypatch.setattr(applying, "post", post)
    assert apply_batch(BATCH) == BATCH

    assert applied_by_inn() == {ROMASHKA: 0, VASILEK: 10, IVANOV: 10}


def test_queued_inn_follows_state_of_webhook() -> None:
    webhook = make_webhook()
    for fields, queued in [
        ({"next_attempt_at": MIDNIGHT_IN_MOSCOW}, None),
        ({"next_attempt_at": None}, ROMASHKA),
        ({"status": Webhook.Status.FAILED}, None),
        ({"status": Webhook.Status.RECEIVED}, ROMASHKA),
        ({"status": Webhook.Status.APPLIED}, None),
    ]:
        Webhook.objects.update(**fields)
        assert Webhook.objects.get(pk=webhook.pk).queued_inn == queued


# --- locked organizations ----------------------------------------------------------------------------


@requires_row_locks
def test_skipped_organization_behind_locked_backlog_is_in_next_batch() -> None:
    make_organizations(ROMASHKA, VASILEK)
    queue(*[ROMASHKA] * 6 * BATCH)
    small = make_webhook(terms(inn=VASILEK))
    queue(*[ROMASHKA] * 2 * BATCH)
    with locked(ROMASHKA):
        with locked(VASILEK):
            assert apply_batch(BATCH) == 0
        assert apply_batch(BATCH) == 1

    assert is_applied(small)


@requires_row_locks
def test_replayed_webhook_behind_locked_backlog_is_in_next_batch() -> None:
    make_organizations(ROMASHKA, VASILEK)
    queue(*[ROMASHKA] * 6 * BATCH)
    small = make_webhook(terms(inn=VASILEK), status=Webhook.Status.FAILED)
    queue(*[ROMASHKA] * 2 * BATCH)
    with locked(ROMASHKA):
        assert apply_batch(BATCH) == 0
        action = operator_actions.create(
            OperatorAction.Kind.REPLAY, [small.pk], User.objects.create_superuser("anna"), "repaired"
        )
        operator_actions.run_chunk(action.pk)
        assert apply_batch(BATCH) == 1

    assert is_applied(small)


@requires_row_locks
def test_batch_of_many_organizations_leaves_some_for_other_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    inns = [f"77{number:08}" for number in range(16)]
    make_organizations(*inns)
    queue(*inns * 4)
    real_post, others = applying.post, []

    def post(*args: Any) -> None:
        if not others:
            others.append(None)
            others[:] = run_concurrently([lambda: apply_batch(16)])
        real_post(*args)

    monkeypatch.setattr(applying, "post", post)
    assert apply_batch(16) == 16

    assert others == [16]
    assert sorted(applied_by_inn().values()) == [0] * 8 + [4] * 8


# --- cost of a batch ------------------------------------------------------------------------------


def cost_of(action: Callable[[], object]) -> int:
    return count_vm_instructions(action) if connection.vendor == "sqlite" else count_rows_read(action)


@pytest.mark.parametrize("is_locked", [False, True])
def test_batch_cost_is_independent_of_backlog_length(
    is_locked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_try_lock = claiming.try_lock
    monkeypatch.setattr(claiming, "try_lock", lambda inns: {} if is_locked else real_try_lock(inns))
    make_organizations(ROMASHKA, VASILEK, IVANOV)
    costs = []
    for _ in range(2):
        queue(*[ROMASHKA, VASILEK, IVANOV] * 5 * BATCH)
        if connection.vendor == "mysql":
            update_statistics()
        apply_batch(BATCH)  # warm up
        monkeypatch.setattr(claiming.ROUND_ROBIN, "last_inn", IVANOV)
        costs.append(cost_of(lambda: apply_batch(BATCH)))
        queue(*[ROMASHKA, VASILEK, IVANOV] * 20 * BATCH)

    short, long = costs
    assert long <= 1.2 * short


def test_batch_cost_is_independent_of_applied_webhooks() -> None:
    make_organizations(ROMASHKA, VASILEK)
    costs = []
    for _ in range(2):
        queue(*[ROMASHKA] * BATCH, *[VASILEK] * BATCH)
        apply_batch(BATCH)
        costs.append(cost_of(lambda: apply_batch(BATCH)))
        queue(*[ROMASHKA, VASILEK] * 25 * BATCH)
        Webhook.objects.received().update(status=Webhook.Status.APPLIED)
        if connection.vendor == "mysql":
            update_statistics()

    short, long = costs
    assert long <= 1.2 * short
