from datetime import timedelta
from typing import Any

import pytest
from django.db import connection

from core.db import clock
from ingest import inbox, unrecognized
from ingest.models import ConflictingDelivery, LedgerVerification, UnrecognizedDelivery, Webhook
from ledger.models import Payment
from monitoring import stats
from monitoring.models import MinuteThroughput
from monitoring.stats import CappedCount, Stats
from monitoring.throughput import DAY, MINUTE, floor_to_minute, record_throughput
from tests.factories import make_webhook, payment_body, post_payments, terms
from tests.query_plans import assert_index_lookups_only, requires_mysql_explain
from worker.heartbeats import record_heartbeat
from worker.models import Heartbeat

pytestmark = pytest.mark.django_db(transaction=True)
SECOND = timedelta(seconds=1)
APPLIED, FAILED = Webhook.Status.APPLIED, Webhook.Status.FAILED


def test_an_empty_house_has_figures() -> None:
    told = Stats(clock.database_now())

    assert (str(told.backlog), str(told.failed)) == ("0", "0")
    assert (told.oldest_pending_seconds, told.delays, told.last_received_at, told.verification) == (None,) * 4
    assert (told.conflicts.number, told.rejected, told.signs) == (0, 0, [])
    assert set(told.minutes.values()) == {(0, 0)}
    assert len(told.minutes) == 24 * 60


def test_each_state_is_counted_by_itself() -> None:
    make_webhook()
    make_webhook()
    make_webhook(status=FAILED)
    make_webhook(status=APPLIED, applied_at=clock.database_now())

    assert stats.backlog() == CappedCount(2)
    assert stats.failed_webhooks() == CappedCount(1)


def test_a_number_that_was_not_counted_to_its_end_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        make_webhook()
    assert str(stats.backlog()) == "3"

    monkeypatch.setattr(stats, "COUNT_MAX", 2)
    assert str(stats.backlog()) == "2+"


def test_the_oldest_that_waits_may_be_one_with_attempts() -> None:
    now = clock.database_now()
    queued = make_webhook(received_at=now - 20 * SECOND)
    assert stats.oldest_pending() == (now - 20 * SECOND, queued.pk)

    attempted = make_webhook(received_at=now - 90 * SECOND, next_attempt_at=now + 60 * SECOND, attempts=2)
    make_webhook(received_at=now - 300 * SECOND, status=FAILED)
    assert stats.oldest_pending() == (now - 90 * SECOND, attempted.pk)


def test_delays_are_those_of_the_webhooks_that_were_applied_last(monkeypatch: pytest.MonkeyPatch) -> None:
    now = clock.database_now()
    for seconds in [50, *range(1, 101)]:
        make_webhook(status=APPLIED, received_at=now - seconds * SECOND, applied_at=now)
    make_webhook(status=APPLIED, received_at=now - timedelta(days=1), applied_at=now - timedelta(hours=2))

    monkeypatch.setattr(stats, "LATENCY_SAMPLE_MAX", 101)  # all but the first of those
    delays = stats.latency(now)

    assert delays == stats.LatencyStats(p50=51.0, p99=100.0, webhooks=100)


def test_a_clock_that_is_ahead_makes_no_negative_delay() -> None:
    now = clock.database_now()
    make_webhook(status=APPLIED, received_at=now + SECOND, applied_at=now)
    delays = stats.latency(now)
    assert delays
    assert delays.p50 == 0


def test_minutes_come_from_the_scheduler_and_the_newest_from_the_rows() -> None:
    now = clock.database_now()
    newest = floor_to_minute(now)
    make_webhook(received_at=newest - 60 * MINUTE)
    MinuteThroughput.objects.create(started_at=newest - 30 * MINUTE, received=7, applied=6)
    make_webhook(received_at=newest - MINUTE)
    post_payments(terms())

    minutes = stats.minutes(now)

    assert minutes[newest - 30 * MINUTE] == (7, 6)
    assert minutes[newest - MINUTE] == (1, 0)
    assert minutes[newest - 29 * MINUTE] is None, "it wasn't counted"
    assert minutes[newest - 61 * MINUTE] == (0, 0), "before the first webhook"
    assert (
        stats.total(
            [minutes[newest], stats.minutes(clock.database_now())[floor_to_minute(clock.database_now())]]
        )[1]
        >= 1
    )


def test_the_scheduler_and_the_page_count_alike() -> None:
    now = clock.database_now()
    first = make_webhook(received_at=floor_to_minute(now) - 3 * MINUTE)
    before = stats.minutes(now)

    record_throughput()

    assert MinuteThroughput.objects.filter(started_at=floor_to_minute(first.received_at)).exists()
    assert stats.minutes(now) == before


def test_conflicts_are_counted_until_they_are_resolved_and_rejections_for_a_day() -> None:
    told = terms(1_00)
    make_webhook(told)
    changed = terms(2_00, operation_id=told.operation_id)
    inbox.store(changed, inbox.Delivery(payment_body(changed)))
    inbox.record_rejected(inbox.Delivery(b"{"), "not JSON")
    now = clock.database_now()

    assert (stats.rejected(now - MINUTE), stats.rejected(now + MINUTE)) == (1, 0)
    ConflictingDelivery.objects.update(received_at=now - 30 * DAY)
    assert stats.conflicts().number == 1
    ConflictingDelivery.objects.update(resolved_by=1)
    assert stats.conflicts().number == 0


def test_who_was_heard_of_lately_is_not_silent() -> None:
    record_heartbeat(Heartbeat.Kind.WORKER, "worker@one", 2)
    record_heartbeat(Heartbeat.Kind.WORKER, "worker@two", 2)
    now = clock.database_now()
    Heartbeat.objects.filter(name="worker@two").update(seen_at=now - timedelta(minutes=2))

    assert [(sign.beat.name, sign.is_stale) for sign in stats.heartbeat_statuses(now)] == [
        ("worker@one", False),
        ("worker@two", True),
    ]


def test_the_last_verification_is_the_newest() -> None:
    for drift in ("", "something"):
        LedgerVerification.objects.create(duration=SECOND, rows_scanned=5, drift=drift)
    last = stats.last_verification()
    assert last
    assert last.drift == "something"


@requires_mysql_explain
def test_no_figure_reads_a_large_table() -> None:
    now = clock.database_now()
    Webhook.objects.bulk_create(
        Webhook(
            operation_id=told.operation_id,
            payer_inn=told.inn,
            amount_kopecks=told.amount_kopecks,
            document_number=told.document_number,
            document_date=told.document_date,
            body=b"{}",
            received_at=now - (4400 - n) * SECOND,
            status=status,
            applied_at=now if status == APPLIED else None,
        )
        for n, status in enumerate(["applied"] * 4000 + ["failed"] * 100 + ["received"] * 300)
        for told in [terms()]
    )
    post_payments(*(terms() for _ in range(500)))
    UnrecognizedDelivery.objects.bulk_create(
        UnrecognizedDelivery(
            digest=str(n), reason="why", body=b"{}", outcome="" if n % 100 == 0 else "stored"
        )
        for n in range(1000)
    )
    asked: list[Any] = [stats.backlog, stats.failed_webhooks, stats.oldest_pending, stats.last_received_at]
    asked += [lambda: stats.latency(now), lambda: stats.minutes(now), stats.conflicts]
    asked += [stats.unrecognized, unrecognized.pending_ids]
    asked += [lambda: stats.first_payment_pk_since(now - MINUTE)]

    assert Payment.objects.count() == 500
    assert connection.vendor == "mysql"
    for ask in asked:
        assert_index_lookups_only(ask)
