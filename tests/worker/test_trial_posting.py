"""A broken deployment costs no webhook an attempt; a bad webhook loses one with any exception."""

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
from ingest.models import Webhook
from ledger.models import BalanceLog, Organization, Payment
from tests.factories import ROMASHKA, VASILEK, balances, make_organizations, make_webhook, terms
from worker import applying, retries, sweeper, tasks, trial_posting

pytestmark = pytest.mark.django_db(transaction=True)
Sent = Callable[[], list[Any]]
ERRORS = [ImportError("no module"), MemoryError(), OSError(28, "No space left"), OperationalError(1054, "x")]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    settings.ATTEMPTS_MAX = 2
    monkeypatch.setattr(trial_posting, "PAUSE_SECONDS", 0)


def execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


@contextmanager
def renamed_column() -> Iterator[None]:
    """Simulate code that is ahead of its migration."""
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


DEFECTS = [renamed_column, renamed_table, broken_release]


def run_everything(sent: Sent) -> None:
    """Run the workers and the sweeper for longer than ATTEMPTS_MAX attempts take."""
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


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("stalled", [False, True], ids=["queued", "stalled"])
def test_broken_deployment_fails_no_webhook_and_repair_applies_all(
    defect: Any, stalled: bool, sent: Sent, settings: Settings
) -> None:
    settings.STALLED_AFTER_SECONDS = 0 if stalled else 60
    make_organizations(ROMASHKA, VASILEK)
    for inn in [ROMASHKA, VASILEK] * 3:
        make_webhook(terms(inn=inn))

    with defect():
        run_everything(sent)
        assert list(Webhook.objects.values_list("status", "attempts")) == [("received", 0)] * 6
    run_everything(sent)

    assert balances() == {ROMASHKA: 300_00, VASILEK: 300_00}


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_bad_webhook_is_failed_for_any_exception(
    error: Exception, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison, real_post = make_webhook(), applying.post

    def post(payments: QuerySet[Any], organizations: Any) -> None:
        if payments.filter(pk=poison.pk):
            raise error
        real_post(payments, organizations)

    monkeypatch.setattr(applying, "post", post)
    make_webhook(terms(inn=VASILEK))
    run_everything(sent)

    poison.refresh_from_db()
    assert (poison.status, poison.attempts, poison.last_error) == ("failed", 2, repr(error))
    assert balances()[VASILEK] == 100_00


def test_postponed_webhook_stores_error_and_waits_30_seconds() -> None:
    webhook = make_webhook(next_attempt_at=timezone.now())

    with broken_release(), pytest.raises(Ignore):
        tasks.retry_one(webhook.pk, 1)

    webhook.refresh_from_db()
    assert "AttributeError" in webhook.last_error
    assert webhook.next_attempt_at
    assert timedelta(seconds=20) < webhook.next_attempt_at - timezone.now() <= timedelta(seconds=30)


def test_attempt_that_died_of_broken_deployment_is_uncounted() -> None:
    webhook = make_webhook(attempts=2, next_attempt_at=timezone.now() - timedelta(hours=1))

    with renamed_column():
        sweeper.sweep()
    webhook.refresh_from_db()
    assert (webhook.status, webhook.attempts) == ("received", 1)

    Webhook.objects.update(attempts=2, next_attempt_at=timezone.now() - timedelta(hours=1))
    sweeper.sweep()
    webhook.refresh_from_db()
    assert (webhook.status, webhook.last_error) == ("failed", retries.PROCESS_DIED)


def test_trial_is_rolled_back() -> None:
    make_webhook()

    assert trial_posting.trial_error() is None

    assert [model.objects.count() for model in (Webhook, Organization, Payment, BalanceLog)] == [1, 0, 0, 0]
    assert Webhook.objects.get().status == "received"


def test_trial_error_is_cause_without_wrapper() -> None:
    with broken_release():
        assert isinstance(trial_posting.trial_error(), AttributeError)


@pytest.mark.parametrize("times", [1, 100])
def test_trial_is_retried_after_transient_error(times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A persistent error is returned itself, not what the broken transaction raises afterwards."""
    monkeypatch.setattr(transactions, "BACKOFF_SECONDS", 0)
    locked = OperationalError(
        *(["database is locked"] if connection.vendor == "sqlite" else [1213, "Deadlock"])
    )
    errors, real_post = iter([locked] * times), applying.post

    def post(payments: QuerySet[Any], organizations: Any) -> None:
        if error := next(errors, None):
            raise error
        real_post(payments, organizations)

    monkeypatch.setattr(applying, "post", post)

    assert trial_posting.trial_error() is (None if times == 1 else locked)
    assert Organization.objects.count() == 0
