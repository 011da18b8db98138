"""The admin's front page: whether money flows, said in one sentence, and the figures behind it."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.utils import timezone
from django.utils.safestring import SafeString

from ingest.models import ConflictingDelivery, RejectedDelivery, Verification, Webhook
from ledger.browsing import list_url
from ledger.models import Payment
from ledger.money import grouped
from monitoring import charts, figures
from monitoring.figures import HOUR, Figures
from worker import clock
from worker.counting import DAY, Counted
from worker.models import Beat

REFRESHED_EVERY_SECONDS = 15
LATELY_MINUTES = 5
VERIFIED_WITHIN = timedelta(hours=26)  # once a day, and a little late
DRIFT_CHARS_SHOWN = 200


class Level(IntEnum):
    """How bad it is; its name in small letters is a class of the style sheet."""

    QUIET = 0
    GOOD = 1
    WARNING = 2
    BAD = 3

    @property
    def css(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class Verdict:
    level: Level
    heading: str
    sentence: str


@dataclass(frozen=True)
class Trouble:
    """One line about something to look at."""

    level: Level
    text: str
    url: str


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


def context() -> dict[str, Any]:
    """What the template monitoring/dashboard.html shows."""
    told = figures.read(clock.now())
    return {
        "read_at": timezone.localtime(told.now),
        "refreshed_every_seconds": REFRESHED_EVERY_SECONDS,
        "verdict": verdict(told),
        "troubles": sorted(troubles(told), key=lambda trouble: -trouble.level),
        "tiles": tiles(told),
        "charts": [_last_hour(told), _last_day(told)],
        "signs": [(sign, _age(sign.age)) for sign in told.signs],
        "beats_url": list_url(Beat),
        "verification": told.verification,
        "verified_rows": told.verification and grouped(told.verification.rows_looked_at),
        "verification_level": _verification_level(told).css,
        "verification_age": told.verification and _age(told.now - told.verification.ended_at),
        "verifications_url": list_url(Verification),
    }


def verdict(told: Figures) -> Verdict:
    """Whether money flows; red also for what is bad beside the flow."""
    flow = _flow(told)
    is_bad = any(trouble.level is Level.BAD for trouble in troubles(told))
    return Verdict(Level.BAD if is_bad else flow.level, flow.heading, flow.sentence)


def _flow(told: Figures) -> Verdict:
    received, applied = told.last(LATELY_MINUTES)
    waiting = told.waiting_seconds
    wait = f"{told.backlog} waiting, the oldest for {duration(waiting)}" if waiting is not None else ""
    lately = f"applied in the last {LATELY_MINUTES} minutes"
    if waiting is not None and waiting > settings.STALLED_AFTER_SECONDS:
        if applied:
            return Verdict(Level.WARNING, "Money is late", f"{grouped(applied)} {lately}; {wait}.")
        return Verdict(Level.BAD, "Money is stuck", f"Nothing {lately}; {wait}.")
    if received or applied:
        return Verdict(
            Level.GOOD, "Money is flowing", f"{grouped(applied)} {lately}; {wait or 'nothing waits'}."
        )
    last = told.newest_received
    since = f"no new webhook for {duration((told.now - last).total_seconds())}" if last else "no webhook yet"
    return Verdict(Level.QUIET, "All is quiet", f"{since.capitalize()}; {wait or 'nothing waits'}.")


def troubles(told: Figures) -> Iterator[Trouble]:
    verification, failed = told.verification, told.failed
    if verification and verification.drift:
        text = f"The last verification found drift: {verification.drift[:DRIFT_CHARS_SHOWN]}"
        yield Trouble(Level.BAD, text, list_url(Verification))
    for kind, name in ((Beat.Kind.WORKER, "worker"), (Beat.Kind.SCHEDULER, "scheduler")):
        ours = [sign for sign in told.signs if sign.beat.kind == kind]
        silent = [sign for sign in ours if sign.is_silent]
        if len(silent) == len(ours):
            ages = [sign.age for sign in silent]
            heard = f" has been heard of for {_age(min(ages))}" if ages else " was heard of within the hour"
            yield Trouble(Level.BAD, f"No {name}{heard}", list_url(Beat))
        elif silent:
            names = ", ".join(sign.beat.name for sign in silent)
            yield Trouble(Level.WARNING, f"Silent {name}: {names}", list_url(Beat))
    if failed:
        what = "webhook has failed and waits" if failed.number == 1 else "webhooks have failed and wait"
        yield Trouble(Level.WARNING, f"{failed} {what} for a person", _state(Webhook.Status.FAILED))
    if told.conflicts:
        what = "delivery contradicts" if told.conflicts == 1 else "deliveries contradict"
        text = f"{grouped(told.conflicts)} {what} an earlier one, within a day"
        yield Trouble(Level.WARNING, text, _kept(ConflictingDelivery, told))
    if not (verification and told.now - verification.ended_at < VERIFIED_WITHIN):
        age = f"for {_age(told.now - verification.ended_at)}" if verification else "yet"
        yield Trouble(
            Level.WARNING,
            f"The books were not verified {age}: manage.py verify_ledger",
            list_url(Verification),
        )


def tiles(told: Figures) -> list[Tile]:
    received, applied = told.last(LATELY_MINUTES)
    waiting, delays = told.waiting_seconds, told.delays
    late = waiting is not None and waiting > settings.STALLED_AFTER_SECONDS
    lately = f"in {LATELY_MINUTES} minutes"
    newest, payments = list_url(Webhook), list_url(Payment)
    applied_webhooks, queue = _state(Webhook.Status.APPLIED), _state(Webhook.Status.RECEIVED)
    of = f"of the last {grouped(delays.webhooks)}" if delays else "none within the hour"
    return [
        Tile("Received", grouped(received), lately, newest),
        Tile("Applied", grouped(applied), lately, payments),
        Tile("Delay, median", duration(delays.p50) if delays else "–", of, applied_webhooks),
        Tile("Delay, p99", duration(delays.p99) if delays else "–", of, applied_webhooks),
        Tile(
            "Backlog",
            str(told.backlog),
            "not yet applied",
            queue,
            Level.WARNING if late else Level.QUIET,
        ),
        Tile(
            "Oldest waiting",
            "–" if waiting is None else duration(waiting),
            "since received",
            queue,
            Level.BAD if late else Level.QUIET,
        ),
        Tile(
            "Failed",
            str(told.failed),
            "wait for a person",
            _state(Webhook.Status.FAILED),
            Level.WARNING if told.failed else Level.QUIET,
        ),
        Tile(
            "Conflicts",
            grouped(told.conflicts),
            "within a day",
            _kept(ConflictingDelivery, told),
            Level.WARNING if told.conflicts else Level.QUIET,
        ),
        Tile("Rejected", grouped(told.rejected), "within a day", _kept(RejectedDelivery, told)),
    ]


def _last_hour(told: Figures) -> Chart:
    minutes = dict(list(told.minutes.items())[-60:])
    points = charts.buckets(minutes, 1)
    svg = charts.flow(points, tick_minutes=10, label="Received and applied in each minute of the last hour")
    return _chart("Last hour, by the minute", svg, minutes, told, HOUR)


def _last_day(told: Figures) -> Chart:
    points = charts.buckets(told.minutes, 10)
    svg = charts.flow(points, tick_minutes=180, label="Received and applied a minute, over the last day")
    return _chart("Last day, a minute on average", svg, told.minutes, told, DAY)


def _chart(
    heading: str,
    svg: SafeString,
    minutes: dict[Any, Counted | None],
    told: Figures,
    window: timedelta,
) -> Chart:
    received, applied = figures.total(list(minutes.values()))
    since = told.now - window
    return Chart(
        heading,
        svg,
        grouped(received),
        grouped(applied),
        list_url(Webhook, id__gte=str(figures.webhooks_since(since))),
        list_url(Payment, id__gte=str(figures.payments_since(since))),
        sum(1 for counted in minutes.values() if counted is None),
    )


def _verification_level(told: Figures) -> Level:
    last = told.verification
    if last and last.drift:
        return Level.BAD
    return Level.GOOD if last and told.now - last.ended_at < VERIFIED_WITHIN else Level.WARNING


def duration(seconds: float) -> str:
    """In the one unit that says it best: 45 ms, 3.2 s, 12 s, 4 min, 2 h, 3 days."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    value = seconds
    for in_the_next, unit in ((60, "s"), (60, "min"), (24, "h")):
        if value < 2 * in_the_next:
            return f"{value:.0f} {unit}"
        value /= in_the_next
    return f"{value:.0f} days"


def _age(age: timedelta) -> str:
    """As a duration, but no finer than a second."""
    seconds = age.total_seconds()
    return f"{seconds:.0f} s" if seconds < 10 else duration(seconds)


def _state(status: Webhook.Status) -> str:
    return list_url(Webhook, status__exact=status.value)


def _kept(model: Any, told: Figures) -> str:
    return list_url(model, received_at__gte=f"{told.now - DAY:%Y-%m-%d %H:%M:%S%z}")
