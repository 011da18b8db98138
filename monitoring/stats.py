"""What operators want to know, each figure by one question that costs the same however long the tables are.

Nothing here changes anything. Moments are compared by the database's clock, which all machines share.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple

from django.db.models import QuerySet

from core.db.pk_by_time import first_pk_at
from ingest.models import (
    ConflictingDelivery,
    LedgerVerification,
    Misconfiguration,
    RejectedDelivery,
    UnrecognizedDelivery,
    Webhook,
)
from ledger.models import Payment
from ledger.money import group_digits
from monitoring.models import MinuteThroughput
from monitoring.throughput import DAY, MINUTE, MinuteCounts, count_throughput, first_minute, floor_to_minute
from worker.heartbeats import STALE_AFTER
from worker.models import Heartbeat

HOUR = timedelta(hours=1)
COUNT_MAX = 100_000  # of one state, by its index alone: some 20 ms
LATENCY_SAMPLE_MAX = 1000  # webhooks that were applied last
RETRIES_SCANNED_MAX = 1000
LIVE_MINUTES_MAX = 4  # of the newest minutes, which the scheduler can't have counted yet


@dataclass(frozen=True)
class CappedCount:
    """A number that was counted no further than COUNTED_MAX."""

    number: int

    def __str__(self) -> str:
        return group_digits(self.number) + ("+" if self.number == COUNT_MAX else "")

    def __bool__(self) -> bool:
        return self.number > 0


@dataclass(frozen=True)
class LatencyStats:
    """Seconds from received to applied; of so many webhooks."""

    p50: float
    p99: float
    webhooks: int


@dataclass(frozen=True)
class HeartbeatStatus:
    """Of a worker or a scheduler: how long ago its last beat was."""

    beat: Heartbeat
    age: timedelta

    @property
    def is_stale(self) -> bool:
        return self.age > STALE_AFTER


def backlog() -> CappedCount:
    """Webhooks that are received and not yet applied."""
    return _counted(Webhook.objects.received())


def failed_webhooks() -> CappedCount:
    return _counted(Webhook.objects.failed())


def unrecognized() -> CappedCount:
    """Unrecognized deliveries that no person has closed, however old they are."""
    return _counted(UnrecognizedDelivery.open_deliveries())


def _counted(rows: QuerySet[Any]) -> CappedCount:
    return CappedCount(rows.order_by()[:COUNT_MAX].count())


class PendingWebhook(NamedTuple):
    """A webhook that isn't applied yet."""

    received_at: datetime
    key: int


def oldest_pending() -> PendingWebhook | None:
    """Of the webhooks that aren't applied yet the one that was received first; None if all are.

    Of those with attempts of their own only the first thousand that are due are looked at.
    """
    queued = Webhook.objects.queued().values_list("received_at", "pk")[:1]
    in_attempts = Webhook.objects.received().filter(next_attempt_at__isnull=False).order_by("next_attempt_at")
    seen = [*queued, *in_attempts.values_list("received_at", "pk")[:RETRIES_SCANNED_MAX]]
    return PendingWebhook(*min(seen)) if seen else None


def latency(now: datetime) -> LatencyStats | None:
    """Of the newest webhooks that are applied, as far as that was within the hour; None without any."""
    applied = Webhook.objects.filter(status=Webhook.Status.APPLIED, next_attempt_at=None).order_by("-id")
    moments = applied.values_list("received_at", "applied_at")[:LATENCY_SAMPLE_MAX]
    # The clocks of web and worker may disagree by a little; nothing is applied before it is received.
    seconds = [
        max((done - told).total_seconds(), 0.0) for told, done in moments if done and done > now - HOUR
    ]
    if not seconds:
        return None
    seconds.sort()
    return LatencyStats(seconds[len(seconds) // 2], seconds[len(seconds) * 99 // 100], len(seconds))


def last_received_at() -> datetime | None:
    """When the bank last told of something new."""
    newest = Webhook.objects.filter(pk__gt=0).order_by("-pk").values_list("received_at", flat=True)
    return newest.first()


def conflicts() -> CappedCount:
    """Conflicting deliveries that are open, however old: they are money in question."""
    return _counted(ConflictingDelivery.objects.filter(resolved_by=None))


def rejected(moment: datetime) -> int:
    """Rejected deliveries since then, of those that are kept: a bounded number."""
    return RejectedDelivery.objects.filter(received_at__gte=moment).count()


def heartbeat_statuses(now: datetime) -> list[HeartbeatStatus]:
    """Of all workers and schedulers that are not forgotten yet (worker/heartbeats.py)."""
    return [
        HeartbeatStatus(beat, max(now - beat.seen_at, timedelta()))
        for beat in Heartbeat.objects.order_by("kind", "name")
    ]


def last_verification() -> LedgerVerification | None:
    return LedgerVerification.objects.order_by("-pk").first()


def verified_at() -> datetime | None:
    """The end of the last verification; without one the first payment, before which nothing is to verify."""
    if last := last_verification():
        return last.ended_at
    return Payment.objects.filter(pk__gt=0).order_by("pk").values_list("created_at", flat=True).first()


def minutes(now: datetime) -> dict[datetime, MinuteCounts | None]:
    """Received and applied in each minute of the last day, oldest first; the last one isn't over yet.

    None where the scheduler should have counted and hasn't. The newest minutes are counted here.
    """
    newest = floor_to_minute(now)
    wanted = [newest - n * MINUTE for n in reversed(range(24 * 60))]
    known: dict[datetime, MinuteCounts] = {
        started_at: (received, applied)
        for started_at, received, applied in MinuteThroughput.objects.filter(
            started_at__gte=wanted[0]
        ).values_list()
    }
    known |= count_throughput([minute for minute in wanted[-LIVE_MINUTES_MAX:] if minute not in known])
    first = first_minute(now)
    return {minute: known.get(minute, (0, 0) if minute < first else None) for minute in wanted}


def total(counted: Sequence[MinuteCounts | None]) -> MinuteCounts:
    """Received and applied in all these minutes together."""
    known = [one for one in counted if one]
    return sum(received for received, _ in known), sum(applied for _, applied in known)


class Stats:
    """Everything at one moment, each read when it is first asked for."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    @cached_property
    def minutes(self) -> dict[datetime, MinuteCounts | None]:
        return minutes(self.now)

    @cached_property
    def backlog(self) -> CappedCount:
        return backlog()

    @cached_property
    def failed(self) -> CappedCount:
        return failed_webhooks()

    @cached_property
    def oldest(self) -> PendingWebhook | None:
        return oldest_pending()

    @cached_property
    def oldest_pending_seconds(self) -> float | None:
        """Of the oldest that isn't applied; None if all are."""
        return self.oldest and max((self.now - self.oldest.received_at).total_seconds(), 0.0)

    @cached_property
    def delays(self) -> LatencyStats | None:
        return latency(self.now)

    @cached_property
    def last_received_at(self) -> datetime | None:
        return last_received_at()

    @cached_property
    def conflicts(self) -> CappedCount:
        return conflicts()

    @cached_property
    def unrecognized(self) -> CappedCount:
        return unrecognized()

    @cached_property
    def misconfigurations(self) -> list[Misconfiguration]:
        """Settings that refused a delivery within a day."""
        return list(Misconfiguration.objects.filter(seen_at__gte=self.now - DAY).order_by("setting"))

    @cached_property
    def rejected(self) -> int:
        """Within a day."""
        return rejected(self.now - DAY)

    @cached_property
    def signs(self) -> list[HeartbeatStatus]:
        return heartbeat_statuses(self.now)

    @cached_property
    def verification(self) -> LedgerVerification | None:
        return last_verification()

    @cached_property
    def verified_at(self) -> datetime | None:
        return verified_at()

    def last(self, minutes: int) -> MinuteCounts:
        """Received and applied within so many minutes, and the one that isn't over yet."""
        return total(list(self.minutes.values())[-minutes - 1 :])


def first_payment_pk_since(moment: datetime) -> int:
    """The key of the first payment posted since then."""
    return first_pk_at(Payment.objects.all(), "created_at", moment)
