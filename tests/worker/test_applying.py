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
from worker import applying
from worker.applying import BatchFailed, apply_batch, apply_ids

pytestmark = pytest.mark.django_db(transaction=True)
T = TypeVar("T")


@pytest.fixture(autouse=True)
def _new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests before have left it somewhere on its way around."""
    monkeypatch.setattr(applying, "ROUND_ROBIN", applying.RoundRobin())


def statuses() -> list[str]:
    return list(Webhook.objects.order_by("id").values_list("status", flat=True))


def test_received_webhooks_are_posted_and_marked_in_the_order_they_came() -> None:
    told = [terms(1_00), terms(2_00, inn=VASILEK), terms(3_00)]
    for one in told:
        make_webhook(one)

    assert apply_batch(10) == 3

    assert statuses() == ["applied"] * 3
    assert balances() == {ROMASHKA: 4_00, VASILEK: 2_00}
    assert [line.payment.terms for line in BalanceLog.objects.order_by("id")] == told
    assert all(webhook.applied_at for webhook in Webhook.objects.all())
    assert apply_batch(10) == 0


def test_a_batch_takes_the_oldest() -> None:
    for _ in range(3):
        make_webhook()

    assert apply_batch(2) == 2
    assert statuses() == ["applied", "applied", "received"]


def test_a_webhook_posted_before_is_marked_and_credits_nothing() -> None:
    """As after a restored inbox: the ledger knows the operation already."""
    webhook = make_webhook()
    post_payments(webhook.terms)

    assert apply_batch(10) == 1

    assert statuses() == ["applied"]
    assert balances() == {ROMASHKA: 100_00}


def test_a_webhook_that_conflicts_with_a_posted_payment_fails_alone() -> None:
    first, second = make_webhook(terms(1_00)), make_webhook(terms(2_00))
    post_payments(terms(5_00, operation_id=first.operation_id))

    assert apply_batch(10) == 2

    first.refresh_from_db()
    assert (first.status, first.last_error) == ("failed", applying.CONFLICT)
    second.refresh_from_db()
    assert second.status == "applied"
    assert balances() == {ROMASHKA: 7_00}


def test_a_batch_that_fails_leaves_no_trace_and_names_its_webhooks(monkeypatch: pytest.MonkeyPatch) -> None:
    webhooks = [make_webhook(), make_webhook()]
    make_organizations(ROMASHKA)
    real_post = applying.post

    def post_and_stumble(*args: Any) -> None:
        real_post(*args)
        raise ValueError("poison")

    monkeypatch.setattr(applying, "post", post_and_stumble)
    with pytest.raises(BatchFailed) as raised:
        apply_batch(10)

    assert raised.value.webhook_ids == [webhook.pk for webhook in webhooks]
    assert isinstance(raised.value.__cause__, ValueError)
    assert statuses() == ["received", "received"]
    assert balances() == {ROMASHKA: 0}


@pytest.mark.parametrize("code", [1020, 1205, 1213, 2006, 2013])
def test_a_transient_error_runs_the_whole_transaction_again(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_webhook()
    real_post, faults = applying.post, [code, code]
    monkeypatch.setattr(transactions, "BACKOFF_SECONDS", 0)

    def post(*args: Any) -> None:
        real_post(*args)
        if faults:
            raise OperationalError(faults.pop(), "database is locked")  # SQLite is known by its words

    monkeypatch.setattr(applying, "post", post)
    assert apply_batch(10) == 1

    assert faults == []
    assert balances() == {ROMASHKA: 100_00}


def test_an_error_that_stays_transient_leaves_the_batch_in_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_webhooks_are_applied_by_name() -> None:
    first, second = make_webhook(), make_webhook()

    assert apply_ids([second.pk]) == {second.pk}

    assert statuses() == ["received", "applied"]
    assert apply_ids([second.pk, second.pk + 1000]) == set()
    assert apply_ids([first.pk, second.pk]) == {first.pk}
    assert balances() == {ROMASHKA: 200_00}
    assert applying.ROUND_ROBIN.last is None


def test_the_statements_of_a_batch_do_not_grow_with_it(
    django_assert_num_queries: DjangoAssertNumQueries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applying, "reset_queries", lambda: None)  # it would empty what is counted here
    applying.ROUND_ROBIN.last = IVANOV
    make_organizations(ROMASHKA, VASILEK)
    for size in (PAYMENTS_LOGGED_MAX + 1, 40):
        for number in range(size):
            make_webhook(terms(inn=(ROMASHKA, VASILEK)[number % 2]))
        with django_assert_num_queries(12):  # BEGIN and COMMIT with them
            apply_batch(100)


@requires_mysql_explain
def test_claiming_and_asking_cost_index_lookups_however_many_are_applied() -> None:
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
        assert_index_lookups_only(lambda last=last: list(applying._scan(100, last)))  # type: ignore[misc]
    assert_index_lookups_only(lambda: list(Webhook.objects.due(timezone.now())[:100]))
    assert_index_lookups_only(lambda: Client().get(f"/api/operations/{some.operation_id}/"))


# --- many at once ------------------------------------------------------------------------------------


def drain(batch: int) -> int:
    applied = 0
    while count := apply_batch(batch):
        applied += count
    return applied


def assert_the_log_is_whole(inn: str, amounts: list[int]) -> None:
    log = list(BalanceLog.objects.filter(organization__inn=inn).order_by("seq"))
    assert [line.seq for line in log] == list(range(1, len(amounts) + 1))
    assert sorted(line.amount_kopecks for line in log) == sorted(amounts)
    balance = 0
    for line in log:
        balance += line.amount_kopecks
        assert line.balance_after_kopecks == balance
    organization = Organization.objects.get(inn=inn)
    assert (organization.balance_kopecks, organization.last_seq) == (balance, len(log))


def test_many_workers_on_one_hot_organization_credit_each_webhook_once() -> None:
    amounts = [number + 1 for number in range(300)]
    for amount in amounts:
        make_webhook(terms(amount))

    applied = run_concurrently([lambda: drain(7)] * 8)

    # A worker leaves early when all that is left is claimed by others.
    assert sum(applied) == 300
    assert_the_log_is_whole(ROMASHKA, amounts)


def test_first_payments_of_new_organizations_at_the_same_time_stay_exact() -> None:
    inns = [f"77{number:08}" for number in range(12)]
    for _ in range(4):
        for inn in inns:
            make_webhook(terms(1_00, inn=inn))

    applied = run_concurrently([lambda: drain(6)] * 8)

    assert sum(applied) == 48
    assert balances() == dict.fromkeys(inns, 4_00)


@requires_row_locks
def test_webhooks_claimed_by_one_worker_are_passed_over_by_another() -> None:
    first, _ = make_webhook(), make_webhook(terms(inn=VASILEK))
    with transaction.atomic():
        list(Webhook.objects.queued().select_for_update()[:1])
        assert run_concurrently([impatient(lambda: apply_batch(10))]) == [1]

    assert statuses() == ["received", "applied"]
    assert apply_ids([first.pk])


def impatient(action: Callable[[], T]) -> Callable[[], T]:
    """Waits a second for a lock, the shortest that the servers know."""

    def acting() -> T:
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION innodb_lock_wait_timeout = 1")
        return action()

    return acting


@requires_row_locks
def test_an_attempt_that_comes_between_look_and_lock_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A webhook fails after it was found: it stays failed, and the others are applied."""
    first, _ = make_webhook(), make_webhook()
    real_lock, looked = applying._lock, []

    def lock(webhook_ids: list[int], *, in_queue: bool) -> list[int]:
        if not looked:
            run_concurrently(
                [lambda: Webhook.objects.filter(id=first.pk).update(status=Webhook.Status.FAILED)]
            )
        looked.append(None)
        return real_lock(webhook_ids, in_queue=in_queue)

    monkeypatch.setattr(applying, "_lock", lock)
    assert apply_batch(10) == 1

    assert statuses() == ["failed", "applied"]
    assert balances() == {ROMASHKA: 100_00}


@requires_row_locks
def test_a_webhook_that_a_foreign_session_locks_delays_no_batch() -> None:
    """The server would let each of them wait for 5 seconds."""
    make_organizations(ROMASHKA)
    first = make_webhook()
    for _ in range(5):
        make_webhook()
    began = time.monotonic()
    with transaction.atomic():
        list(Webhook.objects.filter(pk=first.pk).select_for_update())
        assert run_concurrently([lambda: drain(2)]) == [5]
        assert run_concurrently([lambda: apply_ids([first.pk])]) == [set()]
        assert time.monotonic() - began < 4

    assert drain(2) == 1


@requires_row_locks
def test_an_organization_that_somebody_holds_holds_up_no_other() -> None:
    """Not even behind more of its webhooks than a batch takes; and nobody waits for it."""
    make_organizations(ROMASHKA, VASILEK)
    for _ in range(5):
        make_webhook()
    make_webhook(terms(inn=VASILEK))
    began = time.monotonic()
    with transaction.atomic():
        Organization.objects.select_for_update().get(inn=ROMASHKA)
        assert run_concurrently([lambda: apply_batch(2)]) == [1]
        assert run_concurrently([lambda: apply_ids([Webhook.objects.earliest("id").pk])]) == [set()]
        assert time.monotonic() - began < 4  # the server gives up waiting after 5 seconds

    assert balances() == {ROMASHKA: 0, VASILEK: 100_00}
    assert drain(2) == 5


@requires_row_locks
def test_what_came_while_its_organization_was_held_is_not_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between look and lock another process applies all that was found, and passes over what comes then."""
    make_organizations(ROMASHKA)
    make_webhook()
    real_lock_free, locked = applying.lock_free, []
    this_thread = threading.get_ident()

    def lock_free(inns: set[str]) -> dict[str, int]:
        if threading.get_ident() != this_thread:
            return real_lock_free(inns)
        if not locked:
            assert run_concurrently([lambda: apply_batch(10)]) == [1]
        free = real_lock_free(inns)
        if not locked:
            run_concurrently([lambda: make_webhook(terms(2_00))])
            assert run_concurrently([lambda: apply_batch(10)]) == [0]
        locked.append(free)
        return free

    monkeypatch.setattr(applying, "lock_free", lock_free)
    assert apply_batch(10) == 1

    assert balances() == {ROMASHKA: 102_00}
    assert len(locked) == 2


@requires_row_locks
def test_the_door_does_not_wait_for_a_worker_that_holds_the_webhook() -> None:
    """A repeated delivery must be answered while its webhook is claimed."""
    webhook = make_webhook()
    with transaction.atomic():
        list(Webhook.objects.queued().select_for_update())
        (repeated,) = run_concurrently([lambda: make_webhook(webhook.terms)])

    assert repeated.duplicate_deliveries.count() == 1


@requires_row_locks
def test_the_same_operation_posted_from_outside_at_the_same_time_is_credited_once() -> None:
    operation_id = uuid4()
    make_organizations(ROMASHKA, VASILEK)
    told = [terms(1_00, operation_id=operation_id), terms(1_00, inn=VASILEK, operation_id=operation_id)]

    def post_again(one: PaymentTerms) -> object:
        while True:
            try:
                return post_payments(one)[0] or "created"
            except transactions.DatabaseError:
                continue

    outcomes = run_concurrently([lambda one=one: post_again(one) for one in told] * 4)  # type: ignore[misc]

    assert outcomes.count("created") == 1
    assert sum(balances().values()) == 1_00
