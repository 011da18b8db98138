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

from ingest.models import RejectedDelivery, Verification, Webhook
from ledger.browsing import list_url, may_view
from ledger.models import Payment
from ledger.money import grouped
from monitoring import charts, figures, troubles
from monitoring.durations import age_of, duration
from monitoring.figures import HOUR, Figures
from monitoring.models import Alert
from monitoring.troubles import (
    LATELY_MINUTES,
    Level,
    Trouble,
    conflicts_url,
    kept_url,
    state_url,
    unrecognized_url,
)
from worker import clock, verifying
from worker.counting import DAY, Counted
from worker.models import Beat

REFRESHED_EVERY_SECONDS = 15
DETAIL_CHARS_SHOWN = 200
PERIODS = {"hour": HOUR, "day": DAY}  # by their names in the list of the webhooks


@dataclass(frozen=True)
class Verdict:
    level: Level
    heading: str
    sentence: str


@dataclass(frozen=True)
class Line:
    """One line about something to look at."""

    level: Level
    text: str
    url: str
    told_at: datetime | None  # when an alert told it last


@dataclass(frozen=True)
class Tile:
    label: str
    value: str
    note: str
    url: str
    level: Level = Level.QUIET


@dataclass(frozen=True)
class Chart:
    heading: str
    svg: SafeString
    received: str  # how many in all
    applied: str
    received_url: str
    applied_url: str
    uncounted: int  # minutes


def may_see(request: HttpRequest) -> bool:
    return request.user.has_perm("ingest.view_webhook")


def context(request: HttpRequest) -> dict[str, Any]:
    """What the template monitoring/dashboard.html shows; of a verification only to who may see it."""
    with_drift = may_view(request.user, Verification)
    told = Figures(clock.now())
    found = [trouble if with_drift else replace(trouble, detail="") for trouble in troubles.of_rows(told)]
    shown = lines(told, found)
    return {
        "read_at": timezone.localtime(told.now),
        "refreshed_every_seconds": REFRESHED_EVERY_SECONDS,
        "verdict": verdict(told, found, shown),
        "troubles": shown,
        "tiles": tiles(told),
        "charts": [_last_hour(told), _last_day(told)],
        "signs": [(sign, age_of(sign.age)) for sign in told.signs],
        "beats_url": list_url(Beat),
        "with_verification": with_drift,
        "verification": told.verification,
        "verified_rows": told.verification and grouped(told.verification.rows_looked_at),
        "verification_level": _verification_level(told).css,
        "verification_age": told.verification and age_of(told.now - told.verification.ended_at),
        "verifications_url": list_url(Verification),
        "verified_next": timezone.localtime(verifying.scheduled_after(told.now)),
    }


def verdict(told: Figures, found: list[Trouble], shown: list[Line]) -> Verdict:
    """Whether money flows; red also for what is bad beside the flow."""
    flow = _flow(told, found)
    is_bad = any(line.level is Level.BAD for line in shown)
    return Verdict(Level.BAD if is_bad else flow.level, flow.heading, flow.sentence)


def _flow(told: Figures, found: list[Trouble]) -> Verdict:
    received, applied = told.last(LATELY_MINUTES)
    waiting = told.waiting_seconds
    wait = _("nothing waits")
    if waiting is not None:
        wait = _("{count} waiting, the oldest for {age}").format(count=told.backlog, age=duration(waiting))
    lately = _("Nothing applied in the last {minutes} minutes; {wait}.")
    if applied:
        lately = _("{count} applied in the last {minutes} minutes; {wait}.")
    flow = lately.format(count=grouped(applied), minutes=LATELY_MINUTES, wait=wait)
    if stalled := next((trouble for trouble in found if trouble.cause == troubles.STALLED), None):
        heading = _("Money is stuck") if stalled.level is Level.BAD else _("Money is late")
        return Verdict(stalled.level, heading, flow)
    if received or applied:
        return Verdict(Level.GOOD, _("Money is flowing"), flow)
    last = told.newest_received
    since = _("No new webhook for {age}; {wait}.") if last else _("No webhook yet; {wait}.")
    age = duration((told.now - last).total_seconds()) if last else ""
    return Verdict(Level.QUIET, _("All is quiet"), since.format(age=age, wait=wait))


def lines(told: Figures, found: list[Trouble]) -> list[Line]:
    """The worst first. That money is late is said above them already; what only alerts know is added."""
    open_alerts = {alert.cause: alert for alert in Alert.objects.filter(told_at__isnull=False)}
    ours = [
        Line(
            trouble.level,
            f"{trouble.text}: {trouble.detail[:DETAIL_CHARS_SHOWN]}" if trouble.detail else trouble.text,
            trouble.url,
            alert.told_at if (alert := open_alerts.get(trouble.cause)) else None,
        )
        for trouble in found
        if trouble.cause != troubles.STALLED
    ]
    theirs = [
        Line(Level(alert.level), alert.text, list_url(Alert), alert.told_at)
        for cause, alert in open_alerts.items()
        if cause in troubles.OF_SERVERS and alert.gone_at is None
    ]
    return sorted([*ours, *theirs], key=lambda line: -line.level)


def tiles(told: Figures) -> list[Tile]:
    received, applied = told.last(LATELY_MINUTES)
    waiting, delays = told.waiting_seconds, told.delays
    late = troubles.is_stalled(told)
    lately = _("in {minutes} minutes").format(minutes=LATELY_MINUTES)
    newest, payments = list_url(Webhook), list_url(Payment)
    applied_webhooks, queue = state_url(Webhook.Status.APPLIED), state_url(Webhook.Status.RECEIVED)
    of = _("none within the hour")
    if delays:
        text = ngettext("of the last {n}", "of the last {n}", delays.webhooks)
        of = text.format(n=grouped(delays.webhooks))
    return [
        Tile(_("Received"), grouped(received), lately, newest),
        Tile(_("Applied"), grouped(applied), lately, payments),
        Tile(_("Delay, median"), duration(delays.p50) if delays else "–", of, applied_webhooks),
        Tile(_("Delay, p99"), duration(delays.p99) if delays else "–", of, applied_webhooks),
        Tile(
            _("Backlog"),
            str(told.backlog),
            _("not yet applied"),
            queue,
            Level.WARNING if late else Level.QUIET,
        ),
        Tile(
            _("Oldest waiting"),
            "–" if waiting is None else duration(waiting),
            _("since received"),
            queue if told.oldest is None else reverse("admin:ingest_webhook_change", args=[told.oldest.key]),
            Level.BAD if late else Level.QUIET,
        ),
        Tile(
            _("Failed"),
            str(told.failed),
            _("wait for a person"),
            state_url(Webhook.Status.FAILED),
            Level.WARNING if told.failed else Level.QUIET,
        ),
        Tile(
            _("Conflicts"),
            str(told.conflicts),
            _("wait for a person"),
            conflicts_url(),
            Level.WARNING if told.conflicts else Level.QUIET,
        ),
        Tile(
            _("Unrecognized"),
            str(told.unrecognized),
            _("wait for a person"),
            unrecognized_url(),
            Level.WARNING if told.unrecognized else Level.QUIET,
        ),
        Tile(_("Rejected"), grouped(told.rejected), _("within a day"), kept_url(RejectedDelivery, told)),
    ]


def _last_hour(told: Figures) -> Chart:
    minutes = dict(list(told.minutes.items())[-60:])
    points = charts.buckets(minutes, 1)
    svg = charts.flow(
        points, tick_minutes=10, label=_("Received and applied in each minute of the last hour")
    )
    return _chart(_("Last hour, by the minute"), svg, minutes, told, "hour")


def _last_day(told: Figures) -> Chart:
    points = charts.buckets(told.minutes, 10)
    svg = charts.flow(points, tick_minutes=180, label=_("Received and applied a minute, over the last day"))
    return _chart(_("Last day, a minute on average"), svg, told.minutes, told, "day")


def _chart(
    heading: str,
    svg: SafeString,
    minutes: dict[Any, Counted | None],
    told: Figures,
    period: str,
) -> Chart:
    received, applied = figures.total(list(minutes.values()))
    since = told.now - PERIODS[period]
    return Chart(
        heading,
        svg,
        grouped(received),
        grouped(applied),
        list_url(Webhook, received=period),
        list_url(Payment, id__gte=str(figures.payments_since(since))),
        sum(1 for counted in minutes.values() if counted is None),
    )


def _verification_level(told: Figures) -> Level:
    last = told.verification
    if last and last.drift:
        return Level.BAD
    return Level.GOOD if troubles.is_verified(told) else Level.WARNING
