"""The scheduler verifies the ledger every night."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import OperationalError
from django.utils import timezone

from core.db import clock
from ingest import verification
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
    """Create a webhook that was posted at `at`."""
    payment = terms(amount_kopecks)
    make_webhook(payment, status=Webhook.Status.APPLIED, applied_at=at)
    post_payments(payment)
    with without_triggers(Payment, BalanceLog):
        Payment.objects.filter(operation_id=payment.operation_id).update(created_at=at)
        BalanceLog.objects.filter(payment__operation_id=payment.operation_id).update(created_at=at)


def verified(ago: timedelta, **fields: Any) -> LedgerVerification:
    ended_at = timezone.now() - ago
    return LedgerVerification.objects.create(
        duration=timedelta(seconds=1), rows_scanned=1, ended_at=ended_at, **fields
    )


@pytest.fixture(autouse=True)
def no_subprocess_of_another_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(nightly_verification, "_process", None)
    yield
    if nightly_verification._process:
        nightly_verification._process.join(60)


def test_schedule_uses_bank_time_zone(settings: Any) -> None:
    settings.VERIFY_AT_HOUR = 3
    settings.BANK_TIME_ZONE = ZoneInfo("Europe/Moscow")
    midnight = datetime(2026, 3, 4, tzinfo=UTC)  # when it is three in Moscow

    assert scheduled_before(midnight) == midnight
    assert scheduled_before(midnight - timedelta(seconds=1)) == midnight - DAY
    assert scheduled_after(midnight - timedelta(seconds=1)) == midnight


def test_verification_is_due_once_per_scheduled_time() -> None:
    now = clock.database_now()
    assert not is_due(now), "there is nothing to verify"

    applied(1_00, now)
    assert not is_due(now), "there was nothing to verify"
    assert is_due(now + DAY)

    verified(timedelta())
    assert not is_due(now)
    assert is_due(now + DAY)


def test_verification_runs_once_in_subprocess(settings: Any) -> None:
    applied(1_00, timezone.now() - 2 * DAY)

    tasks.verify()
    assert nightly_verification._process is not None
    nightly_verification._process.join(60)
    tasks.verify()

    saved = LedgerVerification.objects.get()
    assert (saved.drift, saved.is_full, saved.entries_to > 0) == ("", True, True)
    assert not nightly_verification._process.is_alive()


def test_verification_without_the_database_is_repeated_once_its_lease_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    applied(1_00, timezone.now() - 2 * DAY)

    def fail() -> None:
        raise OperationalError(2013, "gone away")

    with monkeypatch.context() as patch:
        patch.setattr(nightly_verification, "verify", fail)
        assert nightly_verification.start_if_due()
        assert nightly_verification._process is not None
        nightly_verification._process.join(60)
    assert nightly_verification._process.exitcode == 0
    assert not nightly_verification.start_if_due()

    Lease.objects.update(expires_at=clock.database_now() - timedelta(seconds=1))
    assert nightly_verification.start_if_due()
    nightly_verification._process.join(60)
    assert LedgerVerification.objects.get().drift == ""


def test_lease_admits_one_scheduler_and_expires() -> None:
    assert nightly_verification._acquire_lease()
    assert not nightly_verification._acquire_lease()

    applied(1_00, timezone.now() - 2 * DAY)
    assert not nightly_verification.start_if_due()

    Lease.objects.update(expires_at=clock.database_now() - timedelta(seconds=1))
    assert nightly_verification.start_if_due()


def test_new_drift_is_found_nightly_and_old_drift_weekly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "OVERLAP_ROWS", 0)
    applied(1_00, timezone.now())
    nightly_verification.verify()
    applied(2_00, timezone.now())
    entries = BalanceLog.objects.order_by("pk")
    old, new = entries[0].pk, entries[1].pk
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


def test_rate_is_bounded_and_lease_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(nightly_verification.time, "sleep", slept.append)
    monkeypatch.setattr(nightly_verification, "LEASE_RENEWAL_SECONDS", 0.0)
    nightly_verification._acquire_lease()
    before = Lease.objects.get().expires_at
    monkeypatch.setattr(nightly_verification, "LEASE_RENEWAL_SECONDS", 60.0)
    pace = nightly_verification.ThrottledProgress(1000)
    monkeypatch.setattr(nightly_verification, "LEASE_DURATION", timedelta(minutes=3))

    pace("entries", 10_000)
    assert slept == [pytest.approx(10, abs=1)]
    pace._renewed -= 61
    pace("entries", 0)
    assert Lease.objects.get().expires_at > before
