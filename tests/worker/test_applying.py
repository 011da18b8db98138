import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from django.db import OperationalError, connection, transaction
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from core.db import transactions
from ingest.models import Webhook
from ledger.models import BalanceLog, Organization
from ledger.posting import PAYMENTS_LOGGED_MAX
from ledger.terms import PaymentTerms
from tests.concurrency import requires_row_locks, run_concurrently
from tests.factories import (
    IVANOV,
    MIDNIGHT_IN_MOSCOW,
    ROMASHKA,
    VASILEK,
    balances,
    make_organizations,
    make_webhook,
    post_payments,
    terms,
)
from tests.query_plans import assert_index_lookups_only, requires_mysql_explain
from worker import applying, claiming
from worker.applying import BatchFailed, apply_batch, apply_ids

pytestmark = pytest.mark.django_db(transaction=True)
T = TypeVar("T")


@pytest.fixture(autouse=True)
def _new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reset the round robin, which earlier tests have advanced."""
    monkeypatch.setattr(claiming, "ROUND_ROBIN", claiming.RoundRobin())


def statuses() -> list[str]:
    return list(Webhook.objects.order_by("id").values_list("status", flat=True))


def test_batch_posts_and_marks_webhooks_in_order_of_receipt() -> None:
    payments = [terms(1_00), terms(2_00, inn=VASILEK), terms(3_00)]
    for payment in payments:
        make_webhook(payment)

    assert apply_batch(10) == 3

    assert statuses() == ["applied"] * 3
    assert balances() == {ROMASHKA: 4_00, VASILEK: 2_00}
    assert [entry.payment.terms for entry in BalanceLog.objects.order_by("id")] == payments
    assert all(webhook.applied_at for webhook in Webhook.objects.all())
    assert apply_batch(10) == 0


def test_batch_takes_oldest_webhooks() -> None:
    for _ in range(3):
        make_webhook()

    assert apply_batch(2) == 2
    assert statuses() == ["applied", "applied", "received"]


def test_webhook_posted_before_is_marked_without_second_credit() -> None:
    """After a restore of the inbox the ledger has the operation already."""
    webhook = make_webhook()
    post_payments(webhook.terms)

    assert apply_batch(10) == 1

    assert statuses() == ["applied"]
    assert balances() == {ROMASHKA: 100_00}


def test_conflicting_webhook_fails_alone() -> None:
    first, second = make_webhook(terms(1_00)), make_webhook(terms(2_00))
    post_payments(terms(5_00, operation_id=first.operation_id))

    assert apply_batch(10) == 2

    first.refresh_from_db()
    assert (first.status, first.last_error) == ("failed", applying.CONFLICT)
    second.refresh_from_db()
    assert second.status == "applied"
    assert balances() == {ROMASHKA: 7_00}


def test_failed_batch_is_rolled_back_and_reports_its_webhooks(monkeypatch: pytest.MonkeyPatch) -> None:
    webhooks = [make_webhook(), make_webhook()]
    make_organizations(ROMASHKA)
    real_post = applying.post

    def post_and_fail(*args: Any) -> None:
        real_post(*args)
        raise ValueError("poison")

    monkeypatch.setattr(applying, "post", post_and_fail)
    with pytest.raises(BatchFailed) as raised:
        apply_batch(10)

    assert raised.value.webhook_ids == [webhook.pk for webhook in webhooks]
    assert isinstance(raised.value.__cause__, ValueError)
    assert statuses() == ["received", "received"]
    assert balances() == {ROMASHKA: 0}


@pytest.mark.parametrize("code", [1020, 1205, 1213, 2006, 2013])
def test_transient_error_retries_whole_transaction(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    make_webhook()
    real_post, errors = applying.post, [code, code]
    monkeypatch.setattr(transactions, "BACKOFF_SECONDS", 0)

    def post(*args: Any) -> None:
        real_post(*args)
        if errors:
            raise OperationalError(errors.pop(), "database is locked")  # SQLite is matched by message

    monkeypatch.setattr(applying, "post", post)
    assert apply_batch(10) == 1

    assert errors == []
    assert balances() == {ROMASHKA: 100_00}


def test_persistent_transient_error_leaves_batch_in_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    make_webhook()
    tries = []

    def post(*_: object) -> None:
        tries.append(None)
        raise OperationalError(1205, "database is locked")

    monkeypatch.setattr(transactions, "BACKOFF_SECONDS", 0)
    monkeypatch.setattr(applying, "post", post)
    with pytest.raises(OperationalError):
        apply_batch(10)

    assert len(tries) == transactions.TRIES_MAX
    webhook = Webhook.objects.get()
    assert (webhook.status, webhook.next_attempt_at) == ("received", None)


def test_apply_ids_applies_only_given_received_webhooks() -> None:
    first, second = make_webhook(), make_webhook()

    assert apply_ids([second.pk]) == {second.pk}

    assert statuses() == ["received", "applied"]
    assert apply_ids([second.pk, second.pk + 1000]) == set()
    assert apply_ids([first.pk, second.pk]) == {first.pk}
    assert balances() == {ROMASHKA: 200_00}
    assert claiming.ROUND_ROBIN.last_inn is None


def test_query_count_is_independent_of_batch_size(
    django_assert_num_queries: DjangoAssertNumQueries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applying, "reset_queries", lambda: None)  # it would reset the count
    claiming.ROUND_ROBIN.last_inn = IVANOV
    make_organizations(ROMASHKA, VASILEK)
    for size in (PAYMENTS_LOGGED_MAX + 1, 40):
        for number in range(size):
            make_webhook(terms(100 * size + number, inn=(ROMASHKA, VASILEK)[number % 2]))
        with django_assert_num_queries(14):  # including BEGIN and COMMIT
            apply_batch(100)


@requires_mysql_explain
def test_claiming_and_status_queries_use_index_lookups_only() -> None:
    Webhook.objects.bulk_create(
        Webhook(
            operation_id=uuid4(),
            payer_inn=ROMASHKA,
            amount_kopecks=1,
            document_number="1",
            document_date=MIDNIGHT_IN_MOSCOW,
            body=b"{}",
            status=status,
        )
        for status in ["applied"] * 4000 + ["failed"] * 100 + ["received"] * 300
    )
    some = Webhook.objects.latest("id")

    with transaction.atomic():
        assert_index_lookups_only(lambda: list(Webhook.objects.queued().select_for_update()[:100]))
    for last in (None, IVANOV, VASILEK):
        assert_index_lookups_only(lambda last=last: list(claiming._scan(100, last)))  # type: ignore[misc]
    assert_index_lookups_only(lambda: list(Webhook.objects.due(timezone.now())[:100]))
    assert_index_lookups_only(lambda: Client().get(f"/api/operations/{some.operation_id}/"))


# --- concurrency ------------------------------------------------------------------------------------


def drain(batch: int) -> int:
    applied = 0
    while count := apply_batch(batch):
        applied += count
    return applied


def assert_log_is_consistent(inn: str, amounts: list[int]) -> None:
    log = list(BalanceLog.objects.filter(organization__inn=inn).order_by("seq"))
    assert [entry.seq for entry in log] == list(range(1, len(amounts) + 1))
    assert sorted(entry.amount_kopecks for entry in log) == sorted(amounts)
    balance = 0
    for entry in log:
        balance += entry.amount_kopecks
        assert entry.balance_after_kopecks == balance
    organization = Organization.objects.get(inn=inn)
    assert (organization.balance_kopecks, organization.last_seq) == (balance, len(log))


@pytest.mark.parametrize("count", [120, pytest.param(300, marks=pytest.mark.long)])
def test_concurrent_workers_on_one_organization_credit_each_webhook_once(count: int) -> None:
    amounts = [number + 1 for number in range(count)]
    for amount in amounts:
        make_webhook(terms(amount))

    applied = run_concurrently([lambda: drain(7)] * 8)

    # A worker ends early if the others have claimed the rest of the queue.
    assert sum(applied) == count
    assert_log_is_consistent(ROMASHKA, amounts)


def test_concurrent_first_payments_of_new_organizations_are_exact() -> None:
    inns = [f"77{number:08}" for number in range(12)]
    for _ in range(4):
        for inn in inns:
            make_webhook(terms(1_00, inn=inn))

    applied = run_concurrently([lambda: drain(6)] * 8)

    assert sum(applied) == 48
    assert balances() == dict.fromkeys(inns, 4_00)


@requires_row_locks
def test_locked_webhooks_are_skipped() -> None:
    first, _ = make_webhook(), make_webhook(terms(inn=VASILEK))
    with transaction.atomic():
        list(Webhook.objects.queued().select_for_update()[:1])
        assert run_concurrently([with_short_lock_timeout(lambda: apply_batch(10))]) == [1]

    assert statuses() == ["received", "applied"]
    assert apply_ids([first.pk])


def with_short_lock_timeout(action: Callable[[], T]) -> Callable[[], T]:
    """Wait for a lock for a second, the shortest timeout of the servers."""

    def run() -> T:
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION innodb_lock_wait_timeout = 1")
        return action()

    return run


@requires_row_locks
def test_webhook_failed_between_select_and_lock_stays_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other webhooks are applied."""
    first, _ = make_webhook(), make_webhook()
    real_lock, calls = claiming._lock_webhooks, []

    def lock(webhook_ids: list[int], *, in_queue: bool) -> list[int]:
        if not calls:
            run_concurrently(
                [lambda: Webhook.objects.filter(id=first.pk).update(status=Webhook.Status.FAILED)]
            )
        calls.append(None)
        return real_lock(webhook_ids, in_queue=in_queue)

    monkeypatch.setattr(claiming, "_lock_webhooks", lock)
    assert apply_batch(10) == 1

    assert statuses() == ["failed", "applied"]
    assert balances() == {ROMASHKA: 100_00}


@requires_row_locks
def test_webhook_locked_by_foreign_session_delays_no_batch() -> None:
    """The lock wait timeout of the server is 5 seconds, for each webhook."""
    make_organizations(ROMASHKA)
    first = make_webhook()
    for _ in range(5):
        make_webhook()
    started = time.monotonic()
    with transaction.atomic():
        list(Webhook.objects.filter(pk=first.pk).select_for_update())
        assert run_concurrently([lambda: drain(2)]) == [5]
        assert run_concurrently([lambda: apply_ids([first.pk])]) == [set()]
        assert time.monotonic() - started < 4

    assert drain(2) == 1


@requires_row_locks
def test_locked_organization_delays_no_other() -> None:
    """Also behind more webhooks of the locked one than a batch has; and no worker waits for the lock."""
    make_organizations(ROMASHKA, VASILEK)
    for _ in range(5):
        make_webhook()
    make_webhook(terms(inn=VASILEK))
    started = time.monotonic()
    with transaction.atomic():
        Organization.objects.select_for_update().get(inn=ROMASHKA)
        assert run_concurrently([lambda: apply_batch(2)]) == [1]
        assert run_concurrently([lambda: apply_ids([Webhook.objects.earliest("id").pk])]) == [set()]
        assert time.monotonic() - started < 4  # the server's lock wait timeout is 5 seconds

    assert balances() == {ROMASHKA: 0, VASILEK: 100_00}
    assert drain(2) == 5


@requires_row_locks
def test_webhook_received_while_organization_was_locked_is_applied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between select and lock another process applies the batch, and then skips the next webhook."""
    make_organizations(ROMASHKA)
    make_webhook()
    real_try_lock, locked = claiming.try_lock, []
    this_thread = threading.get_ident()

    def try_lock(inns: set[str]) -> dict[str, int]:
        if threading.get_ident() != this_thread:
            return real_try_lock(inns)
        if not locked:
            assert run_concurrently([lambda: apply_batch(10)]) == [1]
        organizations = real_try_lock(inns)
        if not locked:
            run_concurrently([lambda: make_webhook(terms(2_00))])
            assert run_concurrently([lambda: apply_batch(10)]) == [0]
        locked.append(organizations)
        return organizations

    monkeypatch.setattr(claiming, "try_lock", try_lock)
    assert apply_batch(10) == 1

    assert balances() == {ROMASHKA: 102_00}
    assert len(locked) == 2


@requires_row_locks
def test_duplicate_delivery_does_not_wait_for_worker() -> None:
    webhook = make_webhook()
    with transaction.atomic():
        list(Webhook.objects.queued().select_for_update())
        (duplicate,) = run_concurrently([lambda: make_webhook(webhook.terms)])

    assert duplicate.duplicate_deliveries.count() == 1


@requires_row_locks
def test_concurrent_posts_of_same_operation_credit_once() -> None:
    operation_id = uuid4()
    make_organizations(ROMASHKA, VASILEK)
    payments = [
        terms(1_00, operation_id=operation_id),
        terms(1_00, inn=VASILEK, operation_id=operation_id),
    ]

    def post_until_done(payment: PaymentTerms) -> object:
        while True:
            try:
                return post_payments(payment)[0] or "created"
            except transactions.DatabaseError:
                continue

    outcomes = run_concurrently(
        [lambda payment=payment: post_until_done(payment) for payment in payments] * 4  # type: ignore[misc]
    )

    assert outcomes.count("created") == 1
    assert sum(balances().values()) == 1_00
