"""The scheduler verifies the books by itself."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.utils import timezone

from ingest import verifying as books
from ingest.models import Verification, Webhook
from ledger.models import BalanceLog, Payment
from tests.cast import posted, received, terms
from tests.planting import bare_tables, unguarded
from worker import clock, tasks, verifying
from worker.models import Lease
from worker.verifying import is_due, scheduled_after, scheduled_before

pytestmark = pytest.mark.django_db(transaction=True)
DAY = timedelta(days=1)


def applied(amount_kopecks: int, at: datetime) -> None:
    """A webhook that was posted at `at`."""
    told = terms(amount_kopecks)
    received(told, status=Webhook.Status.APPLIED, applied_at=at)
    posted(told)
    with unguarded(Payment, BalanceLog):
        Payment.objects.filter(operation_id=told.operation_id).update(created_at=at)
        BalanceLog.objects.filter(payment__operation_id=told.operation_id).update(created_at=at)


def verified(ago: timedelta, **fields: Any) -> Verification:
    ended_at = timezone.now() - ago
    return Verification.objects.create(
        took=timedelta(seconds=1), rows_looked_at=1, ended_at=ended_at, **fields
    )


@pytest.fixture(autouse=True)
def no_child_of_another_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(verifying, "_child", None)
    yield
    if verifying._child:
        verifying._child.join(60)


def test_the_hour_is_that_of_the_banks_time_zone(settings: Any) -> None:
    settings.VERIFY_AT_HOUR = 3
    settings.BANK_TIME_ZONE = ZoneInfo("Europe/Moscow")
    midnight = datetime(2026, 3, 4, tzinfo=UTC)  # when it is three in Moscow

    assert scheduled_before(midnight) == midnight
    assert scheduled_before(midnight - timedelta(seconds=1)) == midnight - DAY
    assert scheduled_after(midnight - timedelta(seconds=1)) == midnight


def test_a_verification_is_due_once_after_each_scheduled_moment() -> None:
    now = clock.now()
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
    assert verifying._child is not None
    verifying._child.join(60)
    tasks.verify()

    kept = Verification.objects.get()
    assert (kept.drift, kept.is_whole, kept.lines_to > 0) == ("", True, True)
    assert not verifying._child.is_alive()


def test_of_several_schedulers_one_verifies_and_a_lease_of_a_dead_one_ends() -> None:
    assert verifying._take_lease()
    assert not verifying._take_lease()

    applied(1_00, timezone.now() - 2 * DAY)
    assert not verifying.start_if_due()

    Lease.objects.update(until=clock.now() - timedelta(seconds=1))
    assert verifying.start_if_due()


def test_new_drift_is_found_by_night_and_old_drift_within_a_week(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books, "OVERLAP_ROWS", 0)
    applied(1_00, timezone.now())
    verifying.verify()
    applied(2_00, timezone.now())
    lines = BalanceLog.objects.order_by("pk")
    old, new = lines[0].pk, lines[1].pk
    with bare_tables():
        BalanceLog.objects.filter(pk=new).update(amount_kopecks=2_01)
        verifying.verify()
        assert "line 2" in Verification.objects.latest("pk").drift
        BalanceLog.objects.filter(pk=new).update(amount_kopecks=2_00)
        verifying.verify()

        BalanceLog.objects.filter(pk=old).update(amount_kopecks=1_01)
        verifying.verify()
        assert not Verification.objects.latest("pk").is_whole
        assert not Verification.objects.latest("pk").drift
        Verification.objects.update(ended_at=timezone.now() - 7 * DAY)
        verifying.verify()
        assert Verification.objects.latest("pk").is_whole
        assert "line 1" in Verification.objects.latest("pk").drift


def test_the_speed_is_bounded_and_the_lease_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(verifying.time, "sleep", slept.append)
    monkeypatch.setattr(verifying, "RENEWED_EVERY_SECONDS", 0.0)
    verifying._take_lease()
    before = Lease.objects.get().until
    monkeypatch.setattr(verifying, "RENEWED_EVERY_SECONDS", 60.0)
    pace = verifying.Pace(1000)
    monkeypatch.setattr(verifying, "LEASED_FOR", timedelta(minutes=3))

    pace("lines", 10_000)
    assert slept == [pytest.approx(10, abs=1)]
    pace._renewed -= 61
    pace("lines", 0)
    assert Lease.objects.get().until > before
