"""What can be wrong with the house: each rule once, for the dashboard, `manage.py doctor` and alerts.

Rules about rows ask the figures, those about servers ask the servers themselves. A trouble's `text` goes out
by e-mail: it tells of numbers and machines, never of what a webhook says.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from typing import Any

from celery import current_app
from django.conf import settings
from django.core.checks import run_checks
from django.db import DatabaseError, InterfaceError
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from core.admin import list_url
from core.observability.url_credentials import redact_urls
from ingest import doorbell, inbox
from ingest.exceptions import Setting
from ingest.models import ConflictingDelivery, LedgerVerification, UnrecognizedDelivery, Webhook
from ledger.money import group_digits
from monitoring.format_duration import format_age, format_duration
from monitoring.stats import HeartbeatStatus, Stats
from monitoring.throughput import DAY
from worker.models import Heartbeat
from worker.trial_posting import trial_error

RECENT_MINUTES = 5
VERIFICATION_AGE_MAX = timedelta(hours=26)  # once a day, and a little late
STALLED = "stalled"
RUNBOOK = "docs/runbook.md"
SERVER_CAUSES = {"broker_unreachable", "refused", "unsafe_database_settings"}  # causes that no row tells of
_RUNBOOK_ENTRIES = {  # of the runbook, by cause
    STALLED: "processing-stalled",
    "drift": "drift",
    "worker_down": "worker-down",
    "worker_stale": "worker-down",
    "scheduler_down": "scheduler-down",
    "scheduler_stale": "scheduler-down",
    "posting_failing": "posting-failing",
    "failed": "failed-webhooks",
    "conflicts": "conflicts",
    "unrecognized": "unrecognized-deliveries",
    "verification_overdue": "verification-overdue",
    "broker_unreachable": "broker-unreachable",
    "database_unreachable": "database-unreachable",
    "refused": "delivery-errors",
    "misconfigured": "misconfigured-setting",
    "unsafe_database_settings": "unsafe-database-settings",
}


class Severity(IntEnum):
    """How bad it is; its name in small letters is a class of the style sheet."""

    QUIET = 0
    OK = 1
    WARNING = 2
    CRITICAL = 3

    @property
    def css(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class Problem:
    """Something to look at. `cause` is its name as long as it goes on, whatever the text says by then."""

    cause: str
    level: Severity
    text: str
    remedy: str
    url: str = ""  # the admin's page about it
    detail: str = ""  # for who may see the rows at `url`
    size: int = 1  # how much of it there is


Rule = Callable[[Stats], Iterator[Problem]]


def runbook_entry(cause: str) -> str:
    """Where the runbook says what to do about it; its beginning for a cause of another version of ours."""
    return f"{RUNBOOK}#{_RUNBOOK_ENTRIES[cause]}" if cause in _RUNBOOK_ENTRIES else RUNBOOK


def data_problems(told: Stats) -> list[Problem]:
    """What the database's rows tell of. Raises as the database does."""
    rules: list[Rule] = [_misconfigured, _stalled, _posting_fails, _drift, _silent, _failed, _conflicts]
    rules += [_unrecognized, _unverified]
    return [trouble for rule in rules for trouble in rule(told)]


def server_problems() -> list[Problem]:
    """What the broker and the database server tell of; takes up to half a minute where one hangs."""
    return [*_broker(), *_database_settings(), *_refused()]


def is_stalled(told: Stats) -> bool:
    return (
        told.oldest_pending_seconds is not None
        and told.oldest_pending_seconds > settings.STALLED_AFTER_SECONDS
    )


def is_verified(told: Stats) -> bool:
    """Lately, with either result, or there was nothing to verify until lately."""
    return told.verified_at is None or told.now - told.verified_at < VERIFICATION_AGE_MAX


def _misconfigured(told: Stats) -> Iterator[Problem]:
    """WARNING where no proof of origin was seen: a stranger may have called an endpoint that is not used."""
    if found := told.misconfigurations:
        proven = any(one.setting == Setting.ALLOWED_HOSTS for one in found)
        text = _("A setting has deliveries refused with 503: {settings}, the last {age} ago")
        names = ", ".join(f"{one.setting} ({one.detail})" for one in found)
        age = format_age(told.now - max(one.seen_at for one in found))
        yield Problem(
            "misconfigured",
            Severity.CRITICAL if proven else Severity.WARNING,
            text.format(settings=names, age=age),
            _("correct the setting and restart web; see that the bank sends again what was refused"),
        )


def _stalled(told: Stats) -> Iterator[Problem]:
    if is_stalled(told):
        applied = told.last(RECENT_MINUTES)[1]
        text = _(
            "Processing delayed: {backlog} waiting, the oldest for {wait}; {applied} applied in {minutes} min"
        )
        yield Problem(
            STALLED,
            Severity.WARNING if applied else Severity.CRITICAL,
            text.format(
                backlog=told.backlog,
                wait=format_duration(told.oldest_pending_seconds or 0),
                applied=group_digits(applied),
                minutes=RECENT_MINUTES,
            ),
            _("see workers and broker; more workers apply more at once"),
            webhooks_url(Webhook.Status.RECEIVED),
        )


def _posting_fails(told: Stats) -> Iterator[Problem]:
    """Tried only while a webhook waits for longer than a sweep, so that the page writes nothing otherwise."""
    if told.oldest_pending_seconds is None or told.oldest_pending_seconds < settings.SWEEP_INTERVAL_SECONDS:
        return
    if fault := trial_error():
        text = _("No webhook can be applied: {fault}")
        url = webhooks_url(Webhook.Status.RECEIVED)
        yield Problem(
            "posting_failing", Severity.CRITICAL, text.format(fault=db_message(fault)), posting_remedy(), url
        )


def posting_remedy() -> str:
    return _(
        "repair the deployment: manage.py migrate, the grants, or an earlier release; no webhook is lost"
    )


def _drift(told: Stats) -> Iterator[Problem]:
    if told.verification and told.verification.drift:
        yield Problem(
            "drift",
            Severity.CRITICAL,
            _("The last verification found drift"),
            _("find out who else writes to the database; a backup has the books before"),
            list_url(LedgerVerification),
            told.verification.drift,
        )


def _silent(told: Stats) -> Iterator[Problem]:
    yield from _silent_of(
        told,
        Heartbeat.Kind.WORKER,
        no_longer=_("No worker has been heard of for {age}"),
        not_any=_("No worker is known to run"),
        some=_("Silent worker: {names}"),
        to_start=_("start one: see the worker's line in the Procfile"),
    )
    yield from _silent_of(
        told,
        Heartbeat.Kind.SCHEDULER,
        no_longer=_("No scheduler has been heard of for {age}"),
        not_any=_("No scheduler is known to run"),
        some=_("Silent scheduler: {names}"),
        to_start=_("start one: see the beat line in the Procfile"),
    )


def _silent_of(told: Stats, kind: Heartbeat.Kind, **words: str) -> Iterator[Problem]:
    ours = [sign for sign in told.signs if sign.beat.kind == kind]
    silent = [sign for sign in ours if sign.is_stale]
    name, url = kind.name.lower(), list_url(Heartbeat)
    if len(silent) == len(ours):
        text = words["not_any"]
        if silent:
            text = words["no_longer"].format(age=format_age(min(sign.age for sign in silent)))
        yield Problem(f"{name}_down", Severity.CRITICAL, text, words["to_start"], url)
    elif silent:
        text = words["some"].format(names=", ".join(sign.beat.name for sign in silent))
        yield Problem(f"{name}_stale", Severity.WARNING, text, heartbeat_remedy(silent[0]), url)


def heartbeat_remedy(sign: HeartbeatStatus) -> str:
    """What to do about one that is silent; empty if it isn't."""
    return _("see whether it runs, and its log") if sign.is_stale else ""


def _failed(told: Stats) -> Iterator[Problem]:
    if told.failed:
        text = ngettext(
            "{n} webhook has failed and waits for a person",
            "{n} webhooks have failed and wait for a person",
            told.failed.number,
        )
        yield Problem(
            "failed",
            Severity.WARNING,
            text.format(n=told.failed),
            _("read why in the admin, repair the cause, then manage.py replay --failed"),
            webhooks_url(Webhook.Status.FAILED),
            size=told.failed.number,
        )


def _conflicts(told: Stats) -> Iterator[Problem]:
    if told.conflicts:
        text = ngettext(
            "{n} delivery contradicts an earlier one, and is not resolved",
            "{n} deliveries contradict an earlier one, and are not resolved",
            told.conflicts.number,
        )
        yield Problem(
            "conflicts",
            Severity.WARNING,
            text.format(n=told.conflicts),
            _("compare the two in the admin, ask the bank, then resolve"),
            conflicts_url(),
            size=told.conflicts.number,
        )


def _unrecognized(told: Stats) -> Iterator[Problem]:
    if told.unrecognized:
        text = ngettext(
            "{n} delivery of a bank is not recognized: it may be money that is in no balance",
            "{n} deliveries of banks are not recognized: they may be money that is in no balance",
            told.unrecognized.number,
        )
        yield Problem(
            "unrecognized",
            Severity.WARNING,
            text.format(n=told.unrecognized),
            _("read why in the admin; process them again when the adapter knows them, or dismiss them"),
            unrecognized_url(),
            size=told.unrecognized.number,
        )


def _unverified(told: Stats) -> Iterator[Problem]:
    if told.verified_at and not is_verified(told):
        text = _("The books were not verified for {age}")
        yield Problem(
            "verification_overdue",
            Severity.WARNING,
            text.format(age=format_age(told.now - told.verified_at)),
            _("see the scheduler's log for why; manage.py verify_ledger verifies at once"),
            list_url(LedgerVerification),
        )


def _broker() -> Iterator[Problem]:
    try:
        queued_messages()
    except Exception:  # noqa: BLE001 each transport has errors of its own
        yield Problem(
            "broker_unreachable", Severity.WARNING, _("The broker does not answer"), broker_remedy()
        )


def queued_messages() -> dict[str, int]:
    """How many messages wait in the broker, by queue. Raises what the transport raises."""
    with current_app.connection_for_write(transport_options=doorbell.BROKER_OPTIONS) as broker:
        return {queue: doorbell.queue_length(current_app, broker, queue) for queue in current_app.amqp.queues}


def broker_remedy() -> str:
    return _("see that Redis runs, and that REDIS_URL is right; meanwhile the scheduler alone applies")


def database_remedy() -> str:
    return _("see that the server runs, and that DATABASE_URL is right")


def _database_settings() -> Iterator[Problem]:
    found = run_checks(databases=["default"], tags=["database"])
    wrong = [one for one in found if one.is_serious() and not one.is_silenced()]
    if wrong:
        text = _("The database server can't be trusted: {what}")
        yield Problem(
            "unsafe_database_settings",
            Severity.CRITICAL,
            text.format(what="; ".join(str(one.msg) for one in wrong)),
            "; ".join(str(one.hint) for one in wrong if one.hint) or "docs/deployment.md",
        )


def _refused() -> Iterator[Problem]:
    """Rows tell only of what was stored; while nothing can be, everything else may look well."""
    if fault := inbox_write_error():
        text = _("No webhook can be stored, and the bank is answered 503: {fault}")
        yield Problem("refused", Severity.CRITICAL, text.format(fault=fault), storage_remedy())


def inbox_write_error() -> str:
    """What the database says to a webhook; empty if it takes one."""
    try:
        inbox.probe_write()
    except (DatabaseError, InterfaceError) as fault:
        return db_message(fault)
    return ""


def db_message(fault: Exception) -> str:
    """The database's own words, without the number in front of them."""
    return redact_urls(str(fault.args[-1])) if fault.args else type(fault).__name__


def storage_remedy() -> str:
    return _("see that the database's disk has room, and that nobody has locked the table")


def webhooks_url(status: Webhook.Status) -> str:
    """The list of the webhooks in this state."""
    return list_url(Webhook, status__exact=status.value)


def unrecognized_url() -> str:
    """The list of the unrecognized deliveries that are open."""
    return list_url(UnrecognizedDelivery, state="open")


def conflicts_url() -> str:
    """The list of the open conflicts."""
    return list_url(ConflictingDelivery, resolved_by__isempty="1")


def recent_deliveries_url(model: Any, told: Stats) -> str:
    """The list of the last day's deliveries of this kind."""
    return list_url(model, received_at__gte=f"{told.now - DAY:%Y-%m-%d %H:%M:%S%z}")
