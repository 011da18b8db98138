from datetime import timedelta
from typing import Any

import pytest
from django.db import connection

from ingest import inbox, unrecognized
from ingest.models import ConflictingDelivery, UnrecognizedDelivery, Verification, Webhook
from ledger.models import Payment
from monitoring import figures
from monitoring.figures import Bounded, Figures
from tests.cast import body, posted, received, terms
from tests.explaining import assert_index_lookups_only, explains
from worker import clock
from worker.beats import beat
from worker.counting import DAY, MINUTE, begun, count_minutes
from worker.models import Beat, Minute

pytestmark = pytest.mark.django_db(transaction=True)
SECOND = timedelta(seconds=1)
APPLIED, FAILED = Webhook.Status.APPLIED, Webhook.Status.FAILED


def test_an_empty_house_has_figures() -> None:
    told = Figures(clock.now())

    assert (str(told.backlog), str(told.failed)) == ("0", "0")
    assert (told.waiting_seconds, told.delays, told.newest_received, told.verification) == (None,) * 4
    assert (told.conflicts.number, told.rejected, told.signs) == (0, 0, [])
    assert set(told.minutes.values()) == {(0, 0)}
    assert len(told.minutes) == 24 * 60


def test_each_state_is_counted_by_itself() -> None:
    received()
    received()
    received(status=FAILED)
    received(status=APPLIED, applied_at=clock.now())

    assert figures.backlog() == Bounded(2)
    assert figures.failed() == Bounded(1)


def test_a_number_that_was_not_counted_to_its_end_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        received()
    assert str(figures.backlog()) == "3"

    monkeypatch.setattr(figures, "COUNTED_MAX", 2)
    assert str(figures.backlog()) == "2+"


def test_the_oldest_that_waits_may_be_one_with_attempts() -> None:
    now = clock.now()
    queued = received(received_at=now - 20 * SECOND)
    assert figures.oldest_waiting() == (now - 20 * SECOND, queued.pk)

    attempted = received(received_at=now - 90 * SECOND, next_attempt_at=now + 60 * SECOND, attempts=2)
    received(received_at=now - 300 * SECOND, status=FAILED)
    assert figures.oldest_waiting() == (now - 90 * SECOND, attempted.pk)


def test_delays_are_those_of_the_webhooks_that_were_applied_last(monkeypatch: pytest.MonkeyPatch) -> None:
    now = clock.now()
    for seconds in [50, *range(1, 101)]:
        received(status=APPLIED, received_at=now - seconds * SECOND, applied_at=now)
    received(status=APPLIED, received_at=now - timedelta(days=1), applied_at=now - timedelta(hours=2))

    monkeypatch.setattr(figures, "SAMPLE_MAX", 101)  # all but the first of those
    delays = figures.delays(now)

    assert delays == figures.Delays(p50=51.0, p99=100.0, webhooks=100)


def test_a_clock_that_is_ahead_makes_no_negative_delay() -> None:
    now = clock.now()
    received(status=APPLIED, received_at=now + SECOND, applied_at=now)
    delays = figures.delays(now)
    assert delays
    assert delays.p50 == 0


def test_minutes_come_from_the_scheduler_and_the_newest_from_the_rows() -> None:
    now = clock.now()
    newest = begun(now)
    received(received_at=newest - 60 * MINUTE)
    Minute.objects.create(began_at=newest - 30 * MINUTE, received=7, applied=6)
    received(received_at=newest - MINUTE)
    posted(terms())

    minutes = figures.minutes(now)

    assert minutes[newest - 30 * MINUTE] == (7, 6)
    assert minutes[newest - MINUTE] == (1, 0)
    assert minutes[newest - 29 * MINUTE] is None, "it wasn't counted"
    assert minutes[newest - 61 * MINUTE] == (0, 0), "before the first webhook"
    assert figures.total([minutes[newest], figures.minutes(clock.now())[begun(clock.now())]])[1] >= 1


def test_the_scheduler_and_the_page_count_alike() -> None:
    now = clock.now()
    first = received(received_at=begun(now) - 3 * MINUTE)
    before = figures.minutes(now)

    count_minutes()

    assert Minute.objects.filter(began_at=begun(first.received_at)).exists()
    assert figures.minutes(now) == before


def test_conflicts_are_counted_until_they_are_resolved_and_rejections_for_a_day() -> None:
    told = terms(1_00)
    received(told)
    changed = terms(2_00, operation_id=told.operation_id)
    inbox.store(changed, body(changed))
    inbox.keep_rejected(b"{", "not JSON")
    now = clock.now()

    assert (figures.rejected(now - MINUTE), figures.rejected(now + MINUTE)) == (1, 0)
    ConflictingDelivery.objects.update(received_at=now - 30 * DAY)
    assert figures.conflicts().number == 1
    ConflictingDelivery.objects.update(resolved_in=1)
    assert figures.conflicts().number == 0


def test_who_was_heard_of_lately_is_not_silent() -> None:
    beat(Beat.Kind.WORKER, "worker@one", 2)
    beat(Beat.Kind.WORKER, "worker@two", 2)
    now = clock.now()
    Beat.objects.filter(name="worker@two").update(seen_at=now - timedelta(minutes=2))

    assert [(sign.beat.name, sign.is_silent) for sign in figures.signs(now)] == [
        ("worker@one", False),
        ("worker@two", True),
    ]


def test_the_last_verification_is_the_newest() -> None:
    for drift in ("", "something"):
        Verification.objects.create(took=SECOND, rows_looked_at=5, drift=drift)
    last = figures.last_verification()
    assert last
    assert last.drift == "something"


@explains
def test_no_figure_reads_a_large_table() -> None:
    now = clock.now()
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
    posted(*(terms() for _ in range(500)))
    UnrecognizedDelivery.objects.bulk_create(
        UnrecognizedDelivery(
            digest=str(n), reason="why", body=b"{}", outcome="" if n % 100 == 0 else "stored"
        )
        for n in range(1000)
    )
    asked: list[Any] = [figures.backlog, figures.failed, figures.oldest_waiting, figures.newest_received]
    asked += [lambda: figures.delays(now), lambda: figures.minutes(now), figures.conflicts]
    asked += [figures.unrecognized, unrecognized.unfinished]
    asked += [lambda: figures.payments_since(now - MINUTE)]

    assert Payment.objects.count() == 500
    assert connection.vendor == "mysql"
    for ask in asked:
        assert_index_lookups_only(ask)
