"""The admin's front page: whether money flows, said in one sentence, and the figures behind it."""

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
from ledger.models import Payment
from ledger.money import group_digits
from monitoring import charts, problems, stats
from monitoring.format_duration import format_age, format_duration
from monitoring.models import Alert
from monitoring.problems import (
    RECENT_MINUTES,
    Problem,
    Severity,
    conflicts_url,
    recent_deliveries_url,
    unrecognized_url,
    webhooks_url,
)
from monitoring.stats import HOUR, Stats
from monitoring.throughput import DAY, MinuteCounts
from worker import nightly_verification
from worker.models import Heartbeat

REFRESH_SECONDS = 15
DETAIL_CHARS_SHOWN = 200
PERIODS = {"hour": HOUR, "day": DAY}  # by their names in the list of the webhooks


@dataclass(frozen=True)
class Verdict:
    level: Severity
    heading: str
    sentence: str


@dataclass(frozen=True)
class ProblemRow:
    """One line about something to look at."""

    level: Severity
    text: str
    url: str
    notified_at: datetime | None  # when an alert told it last


@dataclass(frozen=True)
class Tile:
    label: str
    value: str
    note: str
    url: str
    level: Severity = Severity.QUIET


@dataclass(frozen=True)
class Chart:
    heading: str
    svg: SafeString
    received: str  # how many in all
    applied: str
    received_url: str
    applied_url: str
    uncounted: int  # minutes


def can_view(request: HttpRequest) -> bool:
    return request.user.has_perm("ingest.view_webhook")


def context(request: HttpRequest) -> dict[str, Any]:
    """What the template monitoring/dashboard.html shows; of a verification only to who may see it."""
    with_drift = may_view(request.user, LedgerVerification)
    told = Stats(clock.database_now())
    found = [
        trouble if with_drift else replace(trouble, detail="") for trouble in problems.data_problems(told)
    ]
    shown = problem_rows(told, found)
    return {
        "read_at": timezone.localtime(told.now),
        "refresh_seconds": REFRESH_SECONDS,
        "verdict": verdict(told, found, shown),
        "troubles": shown,
        "tiles": tiles(told),
        "charts": [_last_hour(told), _last_day(told)],
        "signs": [(sign, format_age(sign.age)) for sign in told.signs],
        "beats_url": list_url(Heartbeat),
        "with_verification": with_drift,
        "verification": told.verification,
        "verified_rows": told.verification and group_digits(told.verification.rows_scanned),
        "verification_level": _verification_level(told).css,
        "verification_age": told.verification and format_age(told.now - told.verification.ended_at),
        "verifications_url": list_url(LedgerVerification),
        "verified_next": timezone.localtime(nightly_verification.scheduled_after(told.now)),
    }


def verdict(told: Stats, found: list[Problem], shown: list[ProblemRow]) -> Verdict:
    """Whether money flows; red also for what is bad beside the flow."""
    flow = _flow(told, found)
    is_bad = any(line.level is Severity.CRITICAL for line in shown)
    return Verdict(Severity.CRITICAL if is_bad else flow.level, flow.heading, flow.sentence)


def _flow(told: Stats, found: list[Problem]) -> Verdict:
    received, applied = told.last(RECENT_MINUTES)
    waiting = told.oldest_pending_seconds
    wait = _("nothing waits")
    if waiting is not None:
        wait = _("{count} waiting, the oldest for {age}").format(
            count=told.backlog, age=format_duration(waiting)
        )
    lately = _("Nothing applied in the last {minutes} minutes; {wait}.")
    if applied:
        lately = _("{count} applied in the last {minutes} minutes; {wait}.")
    flow = lately.format(count=group_digits(applied), minutes=RECENT_MINUTES, wait=wait)
    if stalled := next((trouble for trouble in found if trouble.cause == problems.STALLED), None):
        heading = _("Processing stalled") if stalled.level is Severity.CRITICAL else _("Processing delayed")
        return Verdict(stalled.level, heading, flow)
    if received or applied:
        return Verdict(Severity.OK, _("Processing normally"), flow)
    last = told.last_received_at
    since = _("No new webhook for {age}; {wait}.") if last else _("No webhook yet; {wait}.")
    age = format_duration((told.now - last).total_seconds()) if last else ""
    return Verdict(Severity.QUIET, _("All is quiet"), since.format(age=age, wait=wait))


def problem_rows(told: Stats, found: list[Problem]) -> list[ProblemRow]:
    """The worst first. That money is late is said above them already; what only alerts know is added."""
    open_alerts = {alert.cause: alert for alert in Alert.objects.filter(notified_at__isnull=False)}
    ours = [
        ProblemRow(
            trouble.level,
            f"{trouble.text}: {trouble.detail[:DETAIL_CHARS_SHOWN]}" if trouble.detail else trouble.text,
            trouble.url,
            alert.notified_at if (alert := open_alerts.get(trouble.cause)) else None,
        )
        for trouble in found
        if trouble.cause != problems.STALLED
    ]
    theirs = [
        ProblemRow(Severity(alert.level), alert.text, list_url(Alert), alert.notified_at)
        for cause, alert in open_alerts.items()
        if cause in problems.SERVER_CAUSES and alert.cleared_at is None
    ]
    return sorted([*ours, *theirs], key=lambda line: -line.level)


def tiles(told: Stats) -> list[Tile]:
    received, applied = told.last(RECENT_MINUTES)
    waiting, delays = told.oldest_pending_seconds, told.delays
    late = problems.is_stalled(told)
    lately = _("in {minutes} minutes").format(minutes=RECENT_MINUTES)
    newest, payments = list_url(Webhook), list_url(Payment)
    applied_webhooks, queue = webhooks_url(Webhook.Status.APPLIED), webhooks_url(Webhook.Status.RECEIVED)
    of = _("none within the hour")
    if delays:
        text = ngettext("of the last {n}", "of the last {n}", delays.webhooks)
        of = text.format(n=group_digits(delays.webhooks))
    return [
        Tile(_("Received"), group_digits(received), lately, newest),
        Tile(_("Applied"), group_digits(applied), lately, payments),
        Tile(_("Delay, median"), format_duration(delays.p50) if delays else "–", of, applied_webhooks),
        Tile(_("Delay, p99"), format_duration(delays.p99) if delays else "–", of, applied_webhooks),
        Tile(
            _("Backlog"),
            str(told.backlog),
            _("not yet applied"),
            queue,
            Severity.WARNING if late else Severity.QUIET,
        ),
        Tile(
            _("Oldest waiting"),
            "–" if waiting is None else format_duration(waiting),
            _("since received"),
            queue if told.oldest is None else reverse("admin:ingest_webhook_change", args=[told.oldest.key]),
            Severity.CRITICAL if late else Severity.QUIET,
        ),
        Tile(
            _("Failed"),
            str(told.failed),
            _("wait for a person"),
            webhooks_url(Webhook.Status.FAILED),
            Severity.WARNING if told.failed else Severity.QUIET,
        ),
        Tile(
            _("Conflicts"),
            str(told.conflicts),
            _("wait for a person"),
            conflicts_url(),
            Severity.WARNING if told.conflicts else Severity.QUIET,
        ),
        Tile(
            _("Unrecognized"),
            str(told.unrecognized),
            _("wait for a person"),
            unrecognized_url(),
            Severity.WARNING if told.unrecognized else Severity.QUIET,
        ),
        Tile(
            _("Rejected"),
            group_digits(told.rejected),
            _("within a day"),
            recent_deliveries_url(RejectedDelivery, told),
        ),
    ]


def _last_hour(told: Stats) -> Chart:
    minutes = dict(list(told.minutes.items())[-60:])
    points = charts.buckets(minutes, 1)
    svg = charts.throughput_chart(
        points, tick_minutes=10, label=_("Received and applied in each minute of the last hour")
    )
    return _chart(_("Last hour, by the minute"), svg, minutes, told, "hour")


def _last_day(told: Stats) -> Chart:
    points = charts.buckets(told.minutes, 10)
    svg = charts.throughput_chart(
        points, tick_minutes=180, label=_("Received and applied a minute, over the last day")
    )
    return _chart(_("Last day, a minute on average"), svg, told.minutes, told, "day")


def _chart(
    heading: str,
    svg: SafeString,
    minutes: dict[Any, MinuteCounts | None],
    told: Stats,
    period: str,
) -> Chart:
    received, applied = stats.total(list(minutes.values()))
    since = told.now - PERIODS[period]
    return Chart(
        heading,
        svg,
        group_digits(received),
        group_digits(applied),
        list_url(Webhook, received=period),
        list_url(Payment, id__gte=str(stats.first_payment_pk_since(since))),
        sum(1 for counted in minutes.values() if counted is None),
    )


def _verification_level(told: Stats) -> Severity:
    last = told.verification
    if last and last.drift:
        return Severity.CRITICAL
    return Severity.OK if problems.is_verified(told) else Severity.WARNING
