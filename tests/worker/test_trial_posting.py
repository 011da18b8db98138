"""A fault of the deployment costs no webhook an attempt; one of a webhook does, whatever it raises."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest
from celery.exceptions import Ignore
from django.db import OperationalError, connection
from django.db.models import QuerySet
from django.utils import timezone
from pytest_django import Settings

from core.db import transactions
from ingest import doorbell
from ingest.models import Webhook
from ledger.models import BalanceLog, Organization, Payment
from tests.factories import ROMASHKA, VASILEK, balances, make_organizations, make_webhook, terms
from worker import applying, retries, sweeper, tasks, trial_posting

pytestmark = pytest.mark.django_db(transaction=True)
Sent = Callable[[], list[Any]]
ERRORS = [ImportError("no module"), MemoryError(), OSError(28, "No space left"), OperationalError(1054, "x")]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    settings.ATTEMPTS_MAX = 2
    monkeypatch.setattr(trial_posting, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(doorbell, "ring", lambda: None)


def execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


@contextmanager
def renamed_column() -> Iterator[None]:
    """As while the code is ahead of its migration."""
    execute("ALTER TABLE ledger_payment RENAME COLUMN document_date TO moved")
    try:
        yield
    finally:
        execute("ALTER TABLE ledger_payment RENAME COLUMN moved TO document_date")


@contextmanager
def renamed_table() -> Iterator[None]:
    execute("ALTER TABLE ledger_organization RENAME TO moved")
    try:
        yield
    finally:
        execute("ALTER TABLE moved RENAME TO ledger_organization")


@contextmanager
def broken_release() -> Iterator[None]:
    def post(*_: object) -> None:
        raise AttributeError("NoneType has no attribute 'pk'")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(applying, "post", post)
        yield


FAULTS = [renamed_column, renamed_table, broken_release]


def run_everything(sent: Sent) -> None:
    """What workers and the sweeper do in the time that more than ATTEMPTS_MAX attempts take."""
    for _ in range(4):
        Webhook.objects.received().exclude(next_attempt_at=None).update(
            next_attempt_at=timezone.now() - timedelta(hours=1)
        )
        with suppress(Exception):
            tasks.apply_received()
        with suppress(Exception):
            sweeper.sweep()
        for name, kwargs, _ in sent():
            task = {retries.SINGLE_TASK: tasks.retry_one, retries.GROUP_TASK: tasks.retry_group}.get(name)
            if task:
                with suppress(Exception, Ignore):
                    task(**kwargs)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("stalled", [False, True], ids=["queued", "stalled"])
def test_a_fault_of_the_deployment_fails_no_webhook_and_all_are_applied_after_its_repair(
    fault: Any, stalled: bool, sent: Sent, settings: Settings
) -> None:
    settings.STALLED_AFTER_SECONDS = 0 if stalled else 60
    make_organizations(ROMASHKA, VASILEK)
    for inn in [ROMASHKA, VASILEK] * 3:
        make_webhook(terms(inn=inn))

    with fault():
        run_everything(sent)
        assert list(Webhook.objects.values_list("status", "attempts")) == [("received", 0)] * 6
    run_everything(sent)

    assert balances() == {ROMASHKA: 300_00, VASILEK: 300_00}


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_a_webhook_that_alone_raises_anything_is_failed_in_the_end(
    error: Exception, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison, real_post = make_webhook(), applying.post

    def post(told: QuerySet[Any], organizations: Any) -> None:
        if told.filter(pk=poison.pk):
            raise error
        real_post(told, organizations)

    monkeypatch.setattr(applying, "post", post)
    make_webhook(terms(inn=VASILEK))
    run_everything(sent)

    poison.refresh_from_db()
    assert (poison.status, poison.attempts, poison.last_error) == ("failed", 2, repr(error))
    assert balances()[VASILEK] == 100_00


def test_a_postponed_webhook_says_why_and_waits_half_a_minute() -> None:
    webhook = make_webhook(next_attempt_at=timezone.now())

    with broken_release(), pytest.raises(Ignore):
        tasks.retry_one(webhook.pk, 1)

    webhook.refresh_from_db()
    assert "AttributeError" in webhook.last_error
    assert webhook.next_attempt_at
    assert timedelta(seconds=20) < webhook.next_attempt_at - timezone.now() <= timedelta(seconds=30)


def test_a_webhook_whose_processes_died_by_a_fault_of_the_deployment_gets_an_attempt_back() -> None:
    webhook = make_webhook(attempts=2, next_attempt_at=timezone.now() - timedelta(hours=1))

    with renamed_column():
        sweeper.sweep()
    webhook.refresh_from_db()
    assert (webhook.status, webhook.attempts) == ("received", 1)

    Webhook.objects.update(attempts=2, next_attempt_at=timezone.now() - timedelta(hours=1))
    sweeper.sweep()
    webhook.refresh_from_db()
    assert (webhook.status, webhook.last_error) == ("failed", retries.PROCESS_DIED)


def test_a_trial_leaves_nothing_behind() -> None:
    make_webhook()

    assert trial_posting.trial_error() is None

    assert [model.objects.count() for model in (Webhook, Organization, Payment, BalanceLog)] == [1, 0, 0, 0]
    assert Webhook.objects.get().status == "received"


def test_a_trial_names_what_was_raised_and_not_its_wrapper() -> None:
    with broken_release():
        assert isinstance(trial_posting.trial_error(), AttributeError)


@pytest.mark.parametrize("times", [1, 100])
def test_a_trial_is_tried_again_after_a_transient_fault_and_names_one_that_stays(
    times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what the broken connection or transaction says afterwards."""
    monkeypatch.setattr(transactions, "BACKOFF_SECONDS", 0)
    locked = OperationalError(
        *(["database is locked"] if connection.vendor == "sqlite" else [1213, "Deadlock"])
    )
    faults, real_post = iter([locked] * times), applying.post

    def post(told: QuerySet[Any], organizations: Any) -> None:
        if fault := next(faults, None):
            raise fault
        real_post(told, organizations)

    monkeypatch.setattr(applying, "post", post)

    assert trial_posting.trial_error() is (None if times == 1 else locked)
    assert Organization.objects.count() == 0
