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
from tests.factories import make_webhook, post_payments, terms, unsaved_webhook
from tests.row_counts import count_rows_read

pytestmark = pytest.mark.django_db(transaction=True)
NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def time_on_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "SECONDS_MAX", 60.0)


def webhooks(*times: datetime) -> list[Webhook]:
    """Insert webhooks received at these times, in this order."""
    Webhook.objects.bulk_create(unsaved_webhook(received_at=time) for time in times)
    return list(Webhook.objects.order_by("pk"))


def first_pk(time: datetime) -> int:
    return first_pk_at(Webhook.objects.all(), "received_at", time)


def test_first_pk_is_that_of_the_first_row_at_or_after_the_time() -> None:
    assert first_pk(NOON) == 1
    rows = webhooks(*(NOON + n * MINUTE for n in range(50)))
    with without_triggers(Webhook):
        Webhook.objects.filter(pk__in=[row.pk for row in rows[10:30]]).delete()  # leaves a gap in the keys

    assert first_pk(NOON - MINUTE) <= rows[0].pk
    assert first_pk(NOON + 5 * MINUTE) == rows[5].pk
    assert rows[9].pk < first_pk(NOON + 20 * MINUTE) <= rows[30].pk
    assert first_pk(NOON + 49 * MINUTE) == rows[49].pk
    assert first_pk(NOON + 50 * MINUTE) == rows[49].pk + 1


@pytest.mark.parametrize("wrong", [datetime(2000, 1, 1, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC)])
def test_first_pk_is_found_next_to_rows_with_a_wrong_clock(wrong: datetime) -> None:
    """Every fifth row, including the oldest, the newest and the middle one."""
    rows = webhooks(*(wrong if n % 5 == 0 else NOON + n * MINUTE for n in range(201)))

    for n in range(1, 200, 6):
        assert abs(first_pk(NOON + n * MINUTE) - rows[n].pk) <= 3


@pytest.mark.parametrize("wrong", [datetime(2000, 1, 1, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC)])
def test_minute_is_counted_next_to_rows_with_a_wrong_clock(wrong: datetime) -> None:
    second = timedelta(seconds=1)
    webhooks(wrong, *(wrong if n % 7 == 0 else NOON + n * second for n in range(-300, 300)), wrong)

    assert count_throughput([NOON])[NOON][0] == 60 - len(range(0, 60, 7))


def test_counting_starts_at_the_first_webhook_though_its_clock_was_ahead() -> None:
    now = clock.database_now()
    complete = floor_to_minute(now) - 3 * MINUTE
    webhooks(now + timedelta(days=9999), complete, complete)

    record_throughput()

    assert MinuteThroughput.objects.get(started_at=complete).received == 2


def test_minute_count_excludes_adjacent_seconds() -> None:
    second = timedelta(seconds=1)
    webhooks(NOON - second, NOON, NOON + 59 * second, NOON + MINUTE, NOON + 2 * MINUTE)

    assert count_throughput([NOON]) == {NOON: (2, 0)}
    assert count_throughput([NOON + MINUTE, NOON]) == {NOON: (2, 0), NOON + MINUTE: (1, 0)}
    assert count_throughput([]) == {}


def test_rows_out_of_order_are_counted() -> None:
    """Two web machines whose clocks differ by most of a minute."""
    skew = timedelta(seconds=50)
    times = [NOON + n * timedelta(seconds=1) + (skew if n % 2 else timedelta()) for n in range(-60, 180)]
    webhooks(*times)

    expected = sum(1 for time in times if NOON <= time < NOON + MINUTE)
    assert count_throughput([NOON])[NOON][0] == expected


def test_duplicate_deliveries_leave_key_gaps_and_are_not_counted() -> None:
    payment = terms()
    for _ in range(3):
        make_webhook(payment)
    make_webhook()

    minute = floor_to_minute(Webhook.objects.latest("id").received_at)
    assert sum(received for received, _ in count_throughput([minute - MINUTE, minute]).values()) == 2


def test_applied_count_is_the_number_of_payments() -> None:
    post_payments(terms(), terms())

    minute = floor_to_minute(Payment.objects.latest("id").created_at)
    assert sum(applied for _, applied in count_throughput([minute - MINUTE, minute]).values()) == 2


def test_each_complete_minute_is_recorded_once() -> None:
    now = clock.database_now()
    complete = floor_to_minute(now) - 3 * MINUTE
    webhooks(complete - MINUTE, complete, complete + timedelta(seconds=30), now)

    record_throughput()

    known = dict(MinuteThroughput.objects.values_list("started_at", "received"))
    assert known[complete - MINUTE] == 1
    assert known[complete] == 2
    assert floor_to_minute(now) not in known, "incomplete"
    assert min(known) == complete - MINUTE, "nothing is counted before the first webhook"
    assert record_throughput() <= 1, "only a minute that ended meanwhile"


def test_recording_a_minute_again_replaces_its_count() -> None:
    complete = floor_to_minute(clock.database_now()) - 3 * MINUTE
    webhooks(complete)
    record_throughput()
    MinuteThroughput.objects.filter(started_at__gt=complete).delete()

    record_throughput()

    assert MinuteThroughput.objects.get(started_at=complete).received == 1


def test_catching_up_after_an_outage_is_limited_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "SECONDS_MAX", 0.0)
    webhooks(clock.database_now() - timedelta(minutes=30), clock.database_now())
    assert record_throughput() == 0

    monkeypatch.setattr(throughput, "SECONDS_MAX", 1000.0)
    assert 27 <= record_throughput() <= 30


def test_old_minutes_are_deleted() -> None:
    MinuteThroughput.objects.create(started_at=timezone.now() - timedelta(days=4), received=1, applied=1)
    record_throughput()
    assert not MinuteThroughput.objects.exists()


@pytest.mark.skipif(connection.vendor != "mysql", reason="reads the row counters of MySQL and MariaDB")
def test_counting_a_minute_does_not_read_the_history() -> None:
    second = timedelta(seconds=1)
    webhooks(*(NOON + n * second for n in range(-2400, 300)))

    assert count_rows_read(lambda: count_throughput([NOON])) < 800
