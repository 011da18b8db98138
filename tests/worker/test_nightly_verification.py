"""The scheduler verifies the books by itself."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.utils import timezone

from core.db import clock
from ingest import verification as books
from ingest.models import LedgerVerification, Webhook
from ledger.models import BalanceLog, Payment
from tests.corruption import unconstrained_tables, without_triggers
from tests.factories import make_webhook, post_payments, terms
from worker import nightly_verification, tasks
from worker.models import Lease
from worker.nightly_verification import is_due, scheduled_after, scheduled_before

pytestmark = pytest.mark.django_db(transaction=True)
DAY = timedelta(days=1)


def applied(amount_kopecks: int, at: datetime) -> None:
    """A webhook that was posted at `at`."""
    told = terms(amount_kopecks)
    make_webhook(told, status=Webhook.Status.APPLIED, applied_at=at)
    post_payments(told)
    with without_triggers(Payment, BalanceLog):
        Payment.objects.filter(operation_id=told.operation_id).update(created_at=at)
        BalanceLog.objects.filter(payment__operation_id=told.operation_id).update(created_at=at)


def verified(ago: timedelta, **fields: Any) -> LedgerVerification:
    ended_at = timezone.now() - ago
    return LedgerVerification.objects.create(
        duration=timedelta(seconds=1), rows_scanned=1, ended_at=ended_at, **fields
    )


@pytest.fixture(autouse=True)
def no_child_of_another_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(nightly_verification, "_child", None)
    yield
    if nightly_verification._child:
        nightly_verification._child.join(60)


def test_the_hour_is_that_of_the_banks_time_zone(settings: Any) -> None:
    settings.VERIFY_AT_HOUR = 3
    settings.BANK_TIME_ZONE = ZoneInfo("Europe/Moscow")
    midnight = datetime(2026, 3, 4, tzinfo=UTC)  # when it is three in Moscow

    assert scheduled_before(midnight) == midnight
    assert scheduled_before(midnight - timedelta(seconds=1)) == midnight - DAY
    assert scheduled_after(midnight - timedelta(seconds=1)) == midnight


def test_a_verification_is_due_once_after_each_scheduled_moment() -> None:
    now = clock.database_now()
    assert not is_due(now), "there is nothing to verify"

    applied(1_00, now)
    assert not is_due(now), "there was nothing to verify"
    assert is_due(now + DAY)

    verified(timedelta())
    assert not is_due(now)
    assert is_due(now + DAY)


def test_the_scheduler_verifies_in_a_child_and_once(settings: Any) -> None:
    applied(1_00, timezone.now() - 2 * DAY)

    tasks.verify()
    assert nightly_verification._child is not None
    nightly_verification._child.join(60)
    tasks.verify()

    kept = LedgerVerification.objects.get()
    assert (kept.drift, kept.is_full, kept.entries_to > 0) == ("", True, True)
    assert not nightly_verification._child.is_alive()


def test_of_several_schedulers_one_verifies_and_a_lease_of_a_dead_one_ends() -> None:
    assert nightly_verification._acquire_lease()
    assert not nightly_verification._acquire_lease()

    applied(1_00, timezone.now() - 2 * DAY)
    assert not nightly_verification.start_if_due()

    Lease.objects.update(until=clock.database_now() - timedelta(seconds=1))
    assert nightly_verification.start_if_due()


def test_new_drift_is_found_by_night_and_old_drift_within_a_week(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books, "OVERLAP_ROWS", 0)
    applied(1_00, timezone.now())
    nightly_verification.verify()
    applied(2_00, timezone.now())
    lines = BalanceLog.objects.order_by("pk")
    old, new = lines[0].pk, lines[1].pk
    with unconstrained_tables():
        BalanceLog.objects.filter(pk=new).update(amount_kopecks=2_01)
        nightly_verification.verify()
        assert "entry 2" in LedgerVerification.objects.latest("pk").drift
        BalanceLog.objects.filter(pk=new).update(amount_kopecks=2_00)
        nightly_verification.verify()

        BalanceLog.objects.filter(pk=old).update(amount_kopecks=1_01)
        nightly_verification.verify()
        assert not LedgerVerification.objects.latest("pk").is_full
        assert not LedgerVerification.objects.latest("pk").drift
        LedgerVerification.objects.update(ended_at=timezone.now() - 7 * DAY)
        nightly_verification.verify()
        assert LedgerVerification.objects.latest("pk").is_full
        assert "entry 1" in LedgerVerification.objects.latest("pk").drift


def test_the_speed_is_bounded_and_the_lease_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(nightly_verification.time, "sleep", slept.append)
    monkeypatch.setattr(nightly_verification, "LEASE_RENEWAL_SECONDS", 0.0)
    nightly_verification._acquire_lease()
    before = Lease.objects.get().until
    monkeypatch.setattr(nightly_verification, "LEASE_RENEWAL_SECONDS", 60.0)
    pace = nightly_verification.ThrottledProgress(1000)
    monkeypatch.setattr(nightly_verification, "LEASE_DURATION", timedelta(minutes=3))

    pace("entries", 10_000)
    assert slept == [pytest.approx(10, abs=1)]
    pace._renewed -= 61
    pace("entries", 0)
    assert Lease.objects.get().until > before
