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
from tests.factories import make_webhook, payment_body, post_payments, terms, unsaved_webhook
from tests.query_plans import assert_index_lookups_only, requires_mysql_explain
from worker.heartbeats import record_heartbeat
from worker.models import Heartbeat

pytestmark = pytest.mark.django_db(transaction=True)
SECOND = timedelta(seconds=1)
APPLIED, FAILED = Webhook.Status.APPLIED, Webhook.Status.FAILED


def test_stats_of_an_empty_database() -> None:
    current = Stats(clock.database_now())

    assert (str(current.backlog), str(current.failed)) == ("0", "0")
    assert current.oldest_pending_seconds is current.latency is current.last_received_at is None
    assert current.verification is None
    assert (current.conflicts.number, current.rejected, current.heartbeats) == (0, 0, [])
    assert set(current.minutes.values()) == {(0, 0)}
    assert len(current.minutes) == 24 * 60


def test_each_status_is_counted_separately() -> None:
    make_webhook()
    make_webhook()
    make_webhook(status=FAILED)
    make_webhook(status=APPLIED, applied_at=clock.database_now())

    assert stats.backlog() == CappedCount(2)
    assert stats.failed_webhooks() == CappedCount(1)


def test_capped_count_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        make_webhook()
    assert str(stats.backlog()) == "3"

    monkeypatch.setattr(stats, "COUNT_MAX", 2)
    assert str(stats.backlog()) == "2+"


def test_oldest_pending_webhook_may_wait_for_a_retry() -> None:
    now = clock.database_now()
    queued = make_webhook(received_at=now - 20 * SECOND)
    assert stats.oldest_pending() == (now - 20 * SECOND, queued.pk)

    attempted = make_webhook(received_at=now - 90 * SECOND, next_attempt_at=now + 60 * SECOND, attempts=2)
    make_webhook(received_at=now - 300 * SECOND, status=FAILED)
    assert stats.oldest_pending() == (now - 90 * SECOND, attempted.pk)


def test_latency_is_that_of_the_webhooks_applied_last(monkeypatch: pytest.MonkeyPatch) -> None:
    now = clock.database_now()
    for seconds in [50, *range(1, 101)]:
        make_webhook(status=APPLIED, received_at=now - seconds * SECOND, applied_at=now)
    make_webhook(status=APPLIED, received_at=now - timedelta(days=1), applied_at=now - timedelta(hours=2))

    monkeypatch.setattr(stats, "LATENCY_SAMPLE_MAX", 101)  # all but the first one

    assert stats.latency(now) == stats.LatencyStats(p50=51.0, p99=100.0, webhooks=100)


def test_clock_that_is_ahead_gives_no_negative_latency() -> None:
    now = clock.database_now()
    make_webhook(status=APPLIED, received_at=now + SECOND, applied_at=now)
    latency = stats.latency(now)
    assert latency
    assert latency.p50 == 0


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
    assert minutes[newest - 29 * MINUTE] is None, "not counted"
    assert minutes[newest - 61 * MINUTE] == (0, 0), "before the first webhook"
    now = clock.database_now()
    assert stats.total([minutes[newest], stats.minutes(now)[floor_to_minute(now)]])[1] >= 1


def test_scheduler_and_page_count_the_same() -> None:
    now = clock.database_now()
    first = make_webhook(received_at=floor_to_minute(now) - 3 * MINUTE)
    before = stats.minutes(now)

    record_throughput()

    assert MinuteThroughput.objects.filter(started_at=floor_to_minute(first.received_at)).exists()
    assert stats.minutes(now) == before


def test_conflicts_are_counted_until_resolved_and_rejections_for_a_day() -> None:
    payment = terms(1_00)
    make_webhook(payment)
    changed = terms(2_00, operation_id=payment.operation_id)
    inbox.store(changed, inbox.Delivery(payment_body(changed)))
    inbox.record_rejected(inbox.Delivery(b"{"), "not JSON")
    now = clock.database_now()

    assert (stats.rejected(now - MINUTE), stats.rejected(now + MINUTE)) == (1, 0)
    ConflictingDelivery.objects.update(received_at=now - 30 * DAY)
    assert stats.conflicts().number == 1
    ConflictingDelivery.objects.update(resolved_by=1)
    assert stats.conflicts().number == 0


def test_process_is_stale_without_a_recent_heartbeat() -> None:
    record_heartbeat(Heartbeat.Kind.WORKER, "worker@one", 2)
    record_heartbeat(Heartbeat.Kind.WORKER, "worker@two", 2)
    now = clock.database_now()
    Heartbeat.objects.filter(name="worker@two").update(seen_at=now - timedelta(minutes=2))

    assert [(status.heartbeat.name, status.is_stale) for status in stats.heartbeat_statuses(now)] == [
        ("worker@one", False),
        ("worker@two", True),
    ]


def test_last_verification_is_the_newest() -> None:
    for drift in ("", "something"):
        LedgerVerification.objects.create(duration=SECOND, rows_scanned=5, drift=drift)
    last = stats.last_verification()
    assert last
    assert last.drift == "something"


@requires_mysql_explain
def test_no_statistic_reads_a_large_table() -> None:
    now = clock.database_now()
    Webhook.objects.bulk_create(
        unsaved_webhook(
            received_at=now - (4400 - n) * SECOND,
            status=status,
            applied_at=now if status == APPLIED else None,
        )
        for n, status in enumerate(["applied"] * 4000 + ["failed"] * 100 + ["received"] * 300)
    )
    post_payments(*(terms() for _ in range(500)))
    UnrecognizedDelivery.objects.bulk_create(
        UnrecognizedDelivery(
            digest=str(n), reason="why", body=b"{}", outcome="" if n % 100 == 0 else "stored"
        )
        for n in range(1000)
    )
    queries: list[Any] = [stats.backlog, stats.failed_webhooks, stats.oldest_pending, stats.last_received_at]
    queries += [lambda: stats.latency(now), lambda: stats.minutes(now), stats.conflicts]
    queries += [stats.unrecognized, unrecognized.pending_ids]
    queries += [lambda: stats.first_payment_pk_since(now - MINUTE)]

    assert Payment.objects.count() == 500
    assert connection.vendor == "mysql"
    for query in queries:
        assert_index_lookups_only(query)
