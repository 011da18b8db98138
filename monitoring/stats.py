"""Operational statistics, each by one read-only query whose cost does not grow with the tables.

Times are compared with the database clock, which all machines share.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple

from django.conf import settings
from django.db.models import QuerySet

from core.db.pk_by_time import first_pk_at
from ingest.models import (
    ConflictingDelivery,
    LedgerVerification,
    Misconfiguration,
    RejectedDelivery,
    SuspectedDuplicate,
    UnrecognizedDelivery,
    Webhook,
)
from ledger.models import Payment
from ledger.money import group_digits
from ledger.suspense import Unassigned
from ledger.suspense import unassigned as unassigned_payments
from monitoring.models import MinuteThroughput
from monitoring.throughput import (
    DAY,
    MINUTE,
    MinuteCounts,
    count_throughput,
    first_minute,
    floor_to_minute,
)
from statements import standing
from statements.models import NightlyReconciliation
from worker.heartbeats import STALE_AFTER
from worker.models import Heartbeat

HOUR = timedelta(hours=1)
COUNT_MAX = 100_000  # rows of one status, in its index alone: about 20 ms
LATENCY_SAMPLE_MAX = 1000  # webhooks
RETRIES_SCANNED_MAX = 1000
LIVE_MINUTES_MAX = 4  # the newest minutes, which the scheduler cannot have counted yet


@dataclass(frozen=True)
class CappedCount:
    """A count that stops at COUNT_MAX."""

    number: int

    def __str__(self) -> str:
        return group_digits(self.number) + ("+" if self.number == COUNT_MAX else "")

    def __bool__(self) -> bool:
        return self.number > 0


@dataclass(frozen=True)
class LatencyStats:
    """Seconds from received to applied, and the size of the sample."""

    p50: float
    p99: float
    webhooks: int


@dataclass(frozen=True)
class HeartbeatStatus:
    heartbeat: Heartbeat
    age: timedelta

    @property
    def is_stale(self) -> bool:
        return self.age > STALE_AFTER


def backlog() -> CappedCount:
    return _count(Webhook.objects.received())


def failed_webhooks() -> CappedCount:
    return _count(Webhook.objects.failed())


def unrecognized() -> CappedCount:
    """Count open unrecognized deliveries of any age."""
    return _count(UnrecognizedDelivery.open_deliveries())


def suspected_duplicates() -> CappedCount:
    """Count open suspected duplicates, posted or held."""
    return _count(SuspectedDuplicate.objects.filter(state=SuspectedDuplicate.State.OPEN))


def _count(rows: QuerySet[Any]) -> CappedCount:
    return CappedCount(rows.order_by()[:COUNT_MAX].count())


class PendingWebhook(NamedTuple):
    received_at: datetime
    pk: int


def oldest_pending() -> PendingWebhook | None:
    """Return the pending webhook that was received first; None without any.

    Of those waiting for a retry only the RETRIES_SCANNED_MAX due first are examined.
    """
    queued = Webhook.objects.queued().values_list("received_at", "pk")[:1]
    retries = Webhook.objects.received().filter(next_attempt_at__isnull=False).order_by("next_attempt_at")
    pending = [*queued, *retries.values_list("received_at", "pk")[:RETRIES_SCANNED_MAX]]
    return PendingWebhook(*min(pending)) if pending else None


def latency(now: datetime) -> LatencyStats | None:
    """Return the latency of the newest webhooks, those applied within the last hour; None without any."""
    applied = Webhook.objects.filter(status=Webhook.Status.APPLIED, next_attempt_at=None).order_by("-id")
    times = applied.values_list("received_at", "applied_at")[:LATENCY_SAMPLE_MAX]
    # The clocks of web and worker differ slightly, so a difference may be negative.
    seconds = [
        max((applied_at - received_at).total_seconds(), 0.0)
        for received_at, applied_at in times
        if applied_at and applied_at > now - HOUR
    ]
    if not seconds:
        return None
    seconds.sort()
    return LatencyStats(seconds[len(seconds) // 2], seconds[len(seconds) * 99 // 100], len(seconds))


def last_received_at() -> datetime | None:
    newest = Webhook.objects.filter(pk__gt=0).order_by("-pk").values_list("received_at", flat=True)
    return newest.first()


def conflicts() -> CappedCount:
    """Count open conflicts of any age, because they may be missing payments."""
    return _count(ConflictingDelivery.objects.filter(resolved_by=None))


def rejected(since: datetime) -> int:
    """Count stored rejected deliveries, whose number is bounded."""
    return RejectedDelivery.objects.filter(received_at__gte=since).count()


def heartbeat_statuses(now: datetime) -> list[HeartbeatStatus]:
    """Return the status of each worker and scheduler that has not expired (worker/heartbeats.py)."""
    return [
        HeartbeatStatus(heartbeat, max(now - heartbeat.seen_at, timedelta()))
        for heartbeat in Heartbeat.objects.order_by("kind", "name")
    ]


def last_verification() -> LedgerVerification | None:
    return LedgerVerification.objects.order_by("-pk").first()


def verified_at() -> datetime | None:
    """Return the end of the last verification; without one, the first payment's time; None without either."""
    if last := last_verification():
        return last.ended_at
    return Payment.objects.filter(pk__gt=0).order_by("pk").values_list("created_at", flat=True).first()


def minutes(now: datetime) -> dict[datetime, MinuteCounts | None]:
    """Return the throughput of each minute of the last day, oldest first; the last minute is incomplete.

    None marks a minute that the scheduler should have counted. The newest minutes are counted here.
    """
    newest = floor_to_minute(now)
    wanted = [newest - n * MINUTE for n in reversed(range(24 * 60))]
    known: dict[datetime, MinuteCounts] = {
        minute: (received, applied)
        for minute, received, applied in MinuteThroughput.objects.filter(
            started_at__gte=wanted[0]
        ).values_list()
    }
    known |= count_throughput([minute for minute in wanted[-LIVE_MINUTES_MAX:] if minute not in known])
    first = first_minute(now)
    return {minute: known.get(minute, (0, 0) if minute < first else None) for minute in wanted}


def total(counts: Sequence[MinuteCounts | None]) -> MinuteCounts:
    known = [one for one in counts if one]
    return sum(received for received, _ in known), sum(applied for _, applied in known)


class Stats:
    """The statistics at one time, each queried on first access."""

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
        """The age of the oldest pending webhook; None without any."""
        return self.oldest and max((self.now - self.oldest.received_at).total_seconds(), 0.0)

    @cached_property
    def latency(self) -> LatencyStats | None:
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
    def suspected_duplicates(self) -> CappedCount:
        return suspected_duplicates()

    @cached_property
    def unassigned(self) -> Unassigned:
        """The payments in suspense."""
        return unassigned_payments()

    @cached_property
    def suspense_age(self) -> timedelta | None:
        """The age of the first of them; None without any."""
        posted_at = self.unassigned.first_posted_at
        return None if posted_at is None else max(self.now - posted_at, timedelta())

    @cached_property
    def misconfigurations(self) -> list[Misconfiguration]:
        """The settings that refused a delivery within the last day."""
        return list(Misconfiguration.objects.filter(seen_at__gte=self.now - DAY).order_by("setting"))

    @cached_property
    def rejected(self) -> int:
        """Rejected deliveries of the last day."""
        return rejected(self.now - DAY)

    @cached_property
    def heartbeats(self) -> list[HeartbeatStatus]:
        return heartbeat_statuses(self.now)

    @cached_property
    def verification(self) -> LedgerVerification | None:
        return last_verification()

    @cached_property
    def verified_at(self) -> datetime | None:
        return verified_at()

    @cached_property
    def uses_statements(self) -> bool:
        return standing.is_used()

    @cached_property
    def overdue_differences(self) -> standing.Differences:
        """The differences of the reconciliation that no operator has settled in time."""
        return standing.overdue(self.statement_day) if self.uses_statements else standing.Differences()

    @cached_property
    def unproven_statements(self) -> int:
        return standing.unproven().count() if self.uses_statements else 0

    @cached_property
    def uncovered_days(self) -> int:
        return standing.uncovered_days(self.statement_day) if self.uses_statements else 0

    @cached_property
    def balance_breaks(self) -> int:
        return standing.breaks() if self.uses_statements else 0

    @cached_property
    def reconciliation(self) -> NightlyReconciliation | None:
        return standing.last_night()

    @property
    def statement_day(self) -> date:
        return self.now.astimezone(settings.STATEMENT_TIME_ZONE).date()

    def recent(self, minutes: int) -> MinuteCounts:
        """Return the throughput of the last complete minutes and the incomplete one."""
        return total(list(self.minutes.values())[-minutes - 1 :])


def first_payment_pk_since(time: datetime) -> int:
    return first_pk_at(Payment.objects.all(), "created_at", time)
