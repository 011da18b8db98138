from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.utils import timezone

from core.db import clock
from core.db.pk_by_time import first_pk_at
from ingest.models import Webhook
from ledger.models import Payment
from monitoring import throughput
from monitoring.models import MinuteThroughput
from monitoring.throughput import MINUTE, count_throughput, floor_to_minute, record_throughput
from tests.corruption import without_triggers
from tests.factories import MIDNIGHT_IN_MOSCOW, make_webhook, post_payments, terms
from tests.row_counts import count_rows_read

pytestmark = pytest.mark.django_db(transaction=True)
NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


def webhooks(*moments: datetime) -> list[Webhook]:
    """Webhooks received at these moments, in this order."""
    told = [
        Webhook(
            operation_id=t.operation_id,
            payer_inn=t.inn,
            amount_kopecks=t.amount_kopecks,
            document_number=t.document_number,
            document_date=MIDNIGHT_IN_MOSCOW,
            body=b"{}",
            received_at=moment,
        )
        for moment in moments
        for t in [terms()]
    ]
    Webhook.objects.bulk_create(told)
    return list(Webhook.objects.order_by("pk"))


def key(moment: datetime) -> int:
    return first_pk_at(Webhook.objects.all(), "received_at", moment)


def test_the_key_of_a_moment_is_that_of_the_first_row_told_then_or_later() -> None:
    assert key(NOON) == 1
    rows = webhooks(*(NOON + n * MINUTE for n in range(50)))
    with without_triggers(Webhook):
        Webhook.objects.filter(pk__in=[row.pk for row in rows[10:30]]).delete()  # keys have gaps

    assert key(NOON - MINUTE) <= rows[0].pk
    assert key(NOON + 5 * MINUTE) == rows[5].pk
    assert rows[9].pk < key(NOON + 20 * MINUTE) <= rows[30].pk
    assert key(NOON + 49 * MINUTE) == rows[49].pk
    assert key(NOON + 50 * MINUTE) == rows[49].pk + 1


@pytest.mark.parametrize("bad", [datetime(2000, 1, 1, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC)])
def test_the_key_of_a_moment_is_found_beside_rows_of_a_bad_clock(bad: datetime) -> None:
    """Every fifth row, among them the oldest, the newest and the one in the middle."""
    rows = webhooks(*(bad if n % 5 == 0 else NOON + n * MINUTE for n in range(201)))

    for n in range(1, 200, 6):
        assert abs(key(NOON + n * MINUTE) - rows[n].pk) <= 3


@pytest.mark.parametrize("bad", [datetime(2000, 1, 1, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC)])
def test_a_minute_is_counted_beside_rows_of_a_bad_clock(bad: datetime) -> None:
    second = timedelta(seconds=1)
    webhooks(bad, *(bad if n % 7 == 0 else NOON + n * second for n in range(-900, 900)), bad)

    assert count_throughput([NOON])[NOON][0] == 60 - len(range(0, 60, 7))


def test_what_is_counted_begins_with_the_first_webhook_though_its_clock_was_ahead() -> None:
    now = clock.database_now()
    over = floor_to_minute(now) - 3 * MINUTE
    webhooks(now + timedelta(days=9999), over, over)

    record_throughput()

    assert MinuteThroughput.objects.get(started_at=over).received == 2


def test_a_minute_counts_what_was_told_in_it_and_no_second_more() -> None:
    second = timedelta(seconds=1)
    webhooks(NOON - second, NOON, NOON + 59 * second, NOON + MINUTE, NOON + 2 * MINUTE)

    assert count_throughput([NOON]) == {NOON: (2, 0)}
    assert count_throughput([NOON + MINUTE, NOON]) == {NOON: (2, 0), NOON + MINUTE: (1, 0)}
    assert count_throughput([]) == {}


def test_rows_that_came_out_of_order_are_counted() -> None:
    """Two web machines whose clocks are most of a minute apart."""
    apart = timedelta(seconds=50)
    moments = [NOON + n * timedelta(seconds=1) + (apart if n % 2 else timedelta()) for n in range(-60, 180)]
    webhooks(*moments)

    within = sum(1 for moment in moments if NOON <= moment < NOON + MINUTE)
    assert count_throughput([NOON])[NOON][0] == within


def test_repeated_deliveries_leave_gaps_between_keys_and_are_not_counted() -> None:
    told = terms()
    for _ in range(3):
        make_webhook(told)
    make_webhook()

    minute = floor_to_minute(Webhook.objects.latest("id").received_at)
    assert sum(received for received, _ in count_throughput([minute - MINUTE, minute]).values()) == 2


def test_applied_is_what_was_posted() -> None:
    post_payments(terms(), terms())

    minute = floor_to_minute(Payment.objects.latest("id").created_at)
    assert sum(applied for _, applied in count_throughput([minute - MINUTE, minute]).values()) == 2


def test_each_minute_that_is_over_is_counted_once() -> None:
    now = clock.database_now()
    over = floor_to_minute(now) - 3 * MINUTE
    webhooks(over - MINUTE, over, over + timedelta(seconds=30), now)

    record_throughput()

    known = dict(MinuteThroughput.objects.values_list("started_at", "received"))
    assert known[over - MINUTE] == 1
    assert known[over] == 2
    assert floor_to_minute(now) not in known, "it isn't over"
    assert min(known) == over - MINUTE, "before the first webhook there is nothing to count"
    assert record_throughput() <= 1, "only a minute that ended meanwhile"


def test_what_was_counted_twice_is_what_was_counted_last() -> None:
    over = floor_to_minute(clock.database_now()) - 3 * MINUTE
    webhooks(over)
    record_throughput()
    MinuteThroughput.objects.filter(started_at__gt=over).delete()

    record_throughput()

    assert MinuteThroughput.objects.get(started_at=over).received == 1


def test_after_a_long_pause_it_catches_up_and_lets_the_sweep_have_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(throughput, "SECONDS_MAX", 0.0)
    webhooks(clock.database_now() - timedelta(hours=2), clock.database_now())
    assert record_throughput() == 0

    monkeypatch.setattr(throughput, "SECONDS_MAX", 1000.0)
    assert 117 <= record_throughput() <= 120


def test_old_minutes_are_forgotten() -> None:
    MinuteThroughput.objects.create(started_at=timezone.now() - timedelta(days=4), received=1, applied=1)
    record_throughput()
    assert not MinuteThroughput.objects.exists()


@pytest.mark.skipif(connection.vendor != "mysql", reason="reads the counters of MySQL and MariaDB")
def test_counting_a_minute_reads_no_more_of_a_long_history() -> None:
    second = timedelta(seconds=1)
    webhooks(*(NOON + n * second for n in range(-7200, 600)))

    assert count_rows_read(lambda: count_throughput([NOON])) < 800
