"""The admin's front page: whether payments are processed, in one sentence, and the figures behind it."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from core.admin import list_url, may_view
from core.db import clock
from ingest.models import LedgerVerification, RejectedDelivery, Webhook
from ledger.models import Payment, UnassignedPayment
from ledger.money import format_rubles, group_digits
from monitoring import charts, problems
from monitoring.format_duration import format_age, format_duration
from monitoring.models import Alert
from monitoring.problem import Problem, Severity
from monitoring.problems import (
    RECENT_MINUTES,
    conflicts_url,
    recent_deliveries_url,
    suspected_duplicates_url,
    unrecognized_url,
    webhooks_url,
)
from monitoring.reconciliation_problems import reconciliation_url
from monitoring.stats import HOUR, Stats, first_payment_pk_since, total
from monitoring.throughput import DAY, MinuteCounts
from statements.models import StatementLine
from worker import nightly_verification
from worker.models import Heartbeat

REFRESH_SECONDS = 15
DETAIL_CHARS_SHOWN = 200
PERIODS = {"hour": HOUR, "day": DAY}  # values of the webhook list's filter


@dataclass(frozen=True)
class Headline:
    severity: Severity
    heading: str
    sentence: str


@dataclass(frozen=True)
class ProblemRow:
    severity: Severity
    text: str
    url: str
    notified_at: datetime | None


@dataclass(frozen=True)
class Tile:
    label: str
    value: str
    note: str
    url: str
    severity: Severity = Severity.INFO


@dataclass(frozen=True)
class Chart:
    heading: str
    svg: SafeString
    received: str  # total
    applied: str  # total
    received_url: str
    applied_url: str
    uncounted: int  # minutes


def can_view(request: HttpRequest) -> bool:
    return request.user.has_perm("ingest.view_webhook")


def context(request: HttpRequest) -> dict[str, Any]:
    """Return the context of monitoring/dashboard.html; verification details need permission to view them."""
    with_verification = may_view(request.user, LedgerVerification)
    stats = Stats(clock.database_now())
    found = [
        problem if with_verification else replace(problem, detail="")
        for problem in problems.data_problems(stats)
    ]
    rows = problem_rows(found)
    return {
        "read_at": timezone.localtime(stats.now),
        "refresh_seconds": REFRESH_SECONDS,
        "headline": headline(stats, found, rows),
        "problems": rows,
        "tiles": tiles(stats),
        "charts": [_last_hour(stats), _last_day(stats)],
        "heartbeats": [(status, format_age(status.age)) for status in stats.heartbeats],
        "heartbeats_url": list_url(Heartbeat),
        "with_verification": with_verification,
        "verification": stats.verification,
        "verified_rows": stats.verification and group_digits(stats.verification.rows_scanned),
        "verification_severity": _verification_severity(stats).label,
        "verification_age": stats.verification and format_age(stats.now - stats.verification.ended_at),
        "verifications_url": list_url(LedgerVerification),
        "reconciliation": _reconciliation(request, stats),
        "next_verification": timezone.localtime(nightly_verification.scheduled_after(stats.now)),
    }


def _reconciliation(request: HttpRequest, stats: Stats) -> dict[str, Any] | None:
    """Return the last night's result, if statements are used and the viewer may see them."""
    if not stats.uses_statements or not may_view(request.user, StatementLine):
        return None
    last = stats.reconciliation
    severity = Severity.INFO
    if last:
        severity = Severity.WARNING if last.differences else Severity.OK
    if last and last.unexplained:
        severity = Severity.CRITICAL
    return {
        "last": last,
        "severity": severity.label,
        "age": last and format_age(stats.now - last.at),
        "unexplained": last and format_rubles(last.unexplained),
        "differences": last and group_digits(last.differences),
        "sum": last and format_rubles(last.kopecks),
        "url": reconciliation_url(),
    }


def headline(stats: Stats, found: list[Problem], rows: list[ProblemRow]) -> Headline:
    """Return the state of processing; critical also for any other critical problem."""
    processing = _processing(stats, found)
    is_critical = any(row.severity is Severity.CRITICAL for row in rows)
    return replace(processing, severity=Severity.CRITICAL) if is_critical else processing


def _processing(stats: Stats, found: list[Problem]) -> Headline:
    received, applied = stats.recent(RECENT_MINUTES)
    age = stats.oldest_pending_seconds
    pending = _("nothing pending")
    if age is not None:
        pending = _("{count} pending, the oldest for {age}").format(
            count=stats.backlog, age=format_duration(age)
        )
    recently = _("Nothing applied in the last {minutes} minutes; {pending}.")
    if applied:
        recently = _("{count} applied in the last {minutes} minutes; {pending}.")
    sentence = recently.format(count=group_digits(applied), minutes=RECENT_MINUTES, pending=pending)
    if stalled := next((problem for problem in found if problem.cause == problems.STALLED), None):
        is_critical = stalled.severity is Severity.CRITICAL
        heading = _("Processing stalled") if is_critical else _("Processing delayed")
        return Headline(stalled.severity, heading, sentence)
    if received or applied:
        return Headline(Severity.OK, _("Processing normally"), sentence)
    last = stats.last_received_at
    idle = _("No new webhook for {age}; {pending}.") if last else _("No webhook yet; {pending}.")
    idle_for = format_duration((stats.now - last).total_seconds()) if last else ""
    return Headline(Severity.INFO, _("Idle"), idle.format(age=idle_for, pending=pending))


def problem_rows(found: list[Problem]) -> list[ProblemRow]:
    """Return the rows by descending severity, without STALLED, which the headline has.

    Problems of servers are included once an alert was sent, because the page does not query the servers.
    """
    alerts = {alert.cause: alert for alert in Alert.objects.filter(notified_at__isnull=False)}
    rows = [
        ProblemRow(
            problem.severity,
            f"{problem.text}: {problem.detail[:DETAIL_CHARS_SHOWN]}" if problem.detail else problem.text,
            problem.url,
            alert.notified_at if (alert := alerts.get(problem.cause)) else None,
        )
        for problem in found
        if problem.cause != problems.STALLED
    ]
    rows += [
        ProblemRow(Severity(alert.severity), alert.text, list_url(Alert), alert.notified_at)
        for cause, alert in alerts.items()
        if cause in problems.SERVER_CAUSES and alert.cleared_at is None
    ]
    return sorted(rows, key=lambda row: -row.severity)


def tiles(stats: Stats) -> list[Tile]:
    received, applied = stats.recent(RECENT_MINUTES)
    age, latency = stats.oldest_pending_seconds, stats.latency
    stalled = problems.is_stalled(stats)
    recently = _("in {minutes} minutes").format(minutes=RECENT_MINUTES)
    newest, payments = list_url(Webhook), list_url(Payment)
    applied_webhooks, queue = webhooks_url(Webhook.Status.APPLIED), webhooks_url(Webhook.Status.RECEIVED)
    sample = _("none within the last hour")
    if latency:
        text = ngettext("of the last {n}", "of the last {n}", latency.webhooks)
        sample = text.format(n=group_digits(latency.webhooks))
    return [
        Tile(_("Received"), group_digits(received), recently, newest),
        Tile(_("Applied"), group_digits(applied), recently, payments),
        Tile(
            _("Latency, median"), format_duration(latency.p50) if latency else "–", sample, applied_webhooks
        ),
        Tile(_("Latency, p99"), format_duration(latency.p99) if latency else "–", sample, applied_webhooks),
        Tile(
            _("Backlog"),
            str(stats.backlog),
            _("not yet applied"),
            queue,
            Severity.WARNING if stalled else Severity.INFO,
        ),
        Tile(
            _("Oldest pending"),
            "–" if age is None else format_duration(age),
            _("since received"),
            queue if stats.oldest is None else reverse("admin:ingest_webhook_change", args=[stats.oldest.pk]),
            Severity.CRITICAL if stalled else Severity.INFO,
        ),
        Tile(
            _("Failed"),
            str(stats.failed),
            _("need an operator"),
            webhooks_url(Webhook.Status.FAILED),
            Severity.WARNING if stats.failed else Severity.INFO,
        ),
        Tile(
            _("Conflicts"),
            str(stats.conflicts),
            _("need an operator"),
            conflicts_url(),
            Severity.WARNING if stats.conflicts else Severity.INFO,
        ),
        Tile(
            _("Unrecognized"),
            str(stats.unrecognized),
            _("need an operator"),
            unrecognized_url(),
            Severity.WARNING if stats.unrecognized else Severity.INFO,
        ),
        _suspense_tile(stats),
        Tile(
            _("Suspected duplicates"),
            str(stats.suspected_duplicates),
            _("need an operator"),
            suspected_duplicates_url(),
            Severity.WARNING if stats.suspected_duplicates else Severity.INFO,
        ),
        Tile(
            _("Rejected"),
            group_digits(stats.rejected),
            _("in the last day"),
            recent_deliveries_url(RejectedDelivery, stats),
        ),
    ]


def _suspense_tile(stats: Stats) -> Tile:
    waiting, age = stats.unassigned, stats.suspense_age
    note = _("nothing to assign")
    if age is not None:
        text = _("{amount}, the first for {age}")
        amount = format_rubles(waiting.kopecks)
        note = text.format(amount=amount, age=format_duration(age.total_seconds()))
    severity = Severity.WARNING if problems.is_suspense_overdue(stats) else Severity.INFO
    return Tile(_("In suspense"), group_digits(waiting.count), note, list_url(UnassignedPayment), severity)


def _last_hour(stats: Stats) -> Chart:
    minutes = dict(list(stats.minutes.items())[-60:])
    svg = charts.throughput_chart(
        charts.buckets(minutes, 1),
        tick_minutes=10,
        label=_("Received and applied in each minute of the last hour"),
    )
    return _chart(_("Last hour, per minute"), svg, minutes, stats, "hour")


def _last_day(stats: Stats) -> Chart:
    svg = charts.throughput_chart(
        charts.buckets(stats.minutes, 10),
        tick_minutes=180,
        label=_("Received and applied per minute over the last day"),
    )
    return _chart(_("Last day, average per minute"), svg, stats.minutes, stats, "day")


def _chart(
    heading: str,
    svg: SafeString,
    minutes: dict[Any, MinuteCounts | None],
    stats: Stats,
    period: str,
) -> Chart:
    received, applied = total(list(minutes.values()))
    since = stats.now - PERIODS[period]
    return Chart(
        heading,
        svg,
        group_digits(received),
        group_digits(applied),
        list_url(Webhook, received=period),
        list_url(Payment, id__gte=str(first_payment_pk_since(since))),
        sum(1 for counts in minutes.values() if counts is None),
    )


def _verification_severity(stats: Stats) -> Severity:
    last = stats.verification
    if last and last.drift:
        return Severity.CRITICAL
    return Severity.OK if problems.is_verification_current(stats) else Severity.WARNING
