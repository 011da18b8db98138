"""Rules that detect problems: one list for the dashboard, `manage.py doctor` and alerts.

Data rules query the database through Stats, server rules query the broker and the database server. A
problem's `text` is sent by e-mail, so it contains counts and host names only, never the content of a webhook.
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from celery import current_app
from django.conf import settings
from django.core.checks import run_checks
from django.db import DatabaseError, InterfaceError
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from core.admin import list_url
from core.observability.redaction import redact_urls
from ingest import doorbell, inbox
from ingest.exceptions import Setting
from ingest.models import (
    ConflictingDelivery,
    LedgerVerification,
    SuspectedDuplicate,
    UnrecognizedDelivery,
    Webhook,
)
from ledger.models import UnassignedPayment
from ledger.money import group_digits
from monitoring import cluster
from monitoring.format_duration import format_age, format_duration
from monitoring.problem import Problem, Rule, Severity
from monitoring.reconciliation_problems import RULES as RECONCILIATION_RULES
from monitoring.stats import CappedCount, HeartbeatStatus, Stats
from monitoring.throughput import DAY
from worker.models import Heartbeat
from worker.trial_posting import trial_error

RECENT_MINUTES = 5
VERIFICATION_AGE_MAX = timedelta(hours=26)  # verified once a day, with two hours of tolerance
STALLED = "stalled"
RUNBOOK = "docs/runbook.md"
SERVER_CAUSES = {"broker_unreachable", "cluster_degraded", "inbox_write_failed", "unsafe_database_settings"}
_RUNBOOK_ENTRIES = {  # anchor by cause
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
    "suspense_overdue": "unassigned-payments",
    "suspected_duplicates": "suspected-duplicates",
    "verification_overdue": "verification-overdue",
    "unexplained_difference": "unexplained-difference",
    "differences_overdue": "unsettled-differences",
    "unproven_statements": "unproven-statements",
    "uncovered_days": "uncovered-days",
    "balance_break": "unproven-statements",
    "broker_unreachable": "broker-unreachable",
    "database_unreachable": "database-unreachable",
    "cluster_degraded": "a-database-node-is-gone",
    "inbox_write_failed": "delivery-errors",
    "misconfigured": "misconfigured-setting",
    "unsafe_database_settings": "unsafe-database-settings",
}


def runbook_entry(cause: str) -> str:
    """Return the path of the runbook's entry; of the runbook itself for a cause stored by another version."""
    return f"{RUNBOOK}#{_RUNBOOK_ENTRIES[cause]}" if cause in _RUNBOOK_ENTRIES else RUNBOOK


def data_problems(stats: Stats) -> list[Problem]:
    """Return the problems found in the database's rows. Raise DatabaseError or InterfaceError."""
    rules: list[Rule] = [_misconfigured, _stalled, _posting_failing, _drift, _heartbeats, _failed, _conflicts]
    rules += [
        _unrecognized,
        _suspected_duplicates,
        _suspense_overdue,
        _verification_overdue,
        *RECONCILIATION_RULES,
    ]
    return [problem for rule in rules for problem in rule(stats)]


def server_problems() -> list[Problem]:
    """Return the problems of the broker and the database server; takes up to 30 s if one of them hangs."""
    return [*_broker(), *_cluster(), *_database_settings(), *_inbox()]


def is_stalled(stats: Stats) -> bool:
    age = stats.oldest_pending_seconds
    return age is not None and age > settings.STALLED_AFTER_SECONDS


def is_verification_current(stats: Stats) -> bool:
    """Return whether the last verification, with either result, or else the first payment, is recent."""
    return stats.verified_at is None or stats.now - stats.verified_at < VERIFICATION_AGE_MAX


def _misconfigured(stats: Stats) -> Iterator[Problem]:
    """WARNING if no delivery was authenticated: a stranger may have called an endpoint that is not used."""
    if found := stats.misconfigurations:
        authenticated = any(one.setting == Setting.ALLOWED_HOSTS for one in found)
        text = _("Deliveries are answered 503 because of a setting: {settings}; the last {age} ago")
        names = ", ".join(f"{one.setting} ({one.detail})" for one in found)
        age = format_age(stats.now - max(one.seen_at for one in found))
        yield Problem(
            "misconfigured",
            Severity.CRITICAL if authenticated else Severity.WARNING,
            text.format(settings=names, age=age),
            _("correct the setting and restart web; check that the bank resends the refused deliveries"),
        )


def _stalled(stats: Stats) -> Iterator[Problem]:
    if is_stalled(stats):
        applied = stats.recent(RECENT_MINUTES)[1]
        text = _(
            "Processing delayed: {backlog} pending, the oldest for {age}; {applied} applied in {minutes} min"
        )
        yield Problem(
            STALLED,
            Severity.WARNING if applied else Severity.CRITICAL,
            text.format(
                backlog=stats.backlog,
                age=format_duration(stats.oldest_pending_seconds or 0),
                applied=group_digits(applied),
                minutes=RECENT_MINUTES,
            ),
            _("check workers and broker; more workers increase the throughput"),
            webhooks_url(Webhook.Status.RECEIVED),
        )


def _posting_failing(stats: Stats) -> Iterator[Problem]:
    """Attempt a trial posting only while a webhook is overdue, so that the page otherwise writes nothing."""
    age = stats.oldest_pending_seconds
    if age is None or age < settings.SWEEP_INTERVAL_SECONDS:
        return
    if error := trial_error():
        text = _("No webhook can be applied: {error}")
        url = webhooks_url(Webhook.Status.RECEIVED)
        message = text.format(error=db_message(error))
        yield Problem("posting_failing", Severity.CRITICAL, message, posting_remedy(), url)


def posting_remedy() -> str:
    return _(
        "repair the deployment: run manage.py migrate, restore the grants or roll back; no webhook is lost"
    )


def _drift(stats: Stats) -> Iterator[Problem]:
    if stats.verification and stats.verification.drift:
        yield Problem(
            "drift",
            Severity.CRITICAL,
            _("The last verification found drift"),
            _("find out what else writes to the database; a backup has the previous ledger"),
            list_url(LedgerVerification),
            stats.verification.drift,
        )


def _heartbeats(stats: Stats) -> Iterator[Problem]:
    yield from _heartbeats_of(
        stats,
        Heartbeat.Kind.WORKER,
        all_stale=_("No worker heartbeat for {age}"),
        none=_("No worker is running"),
        some_stale=_("Worker without heartbeat: {names}"),
        start=_("start a worker: see its line in the Procfile"),
    )
    yield from _heartbeats_of(
        stats,
        Heartbeat.Kind.SCHEDULER,
        all_stale=_("No scheduler heartbeat for {age}"),
        none=_("No scheduler is running"),
        some_stale=_("Scheduler without heartbeat: {names}"),
        start=_("start the scheduler: see the beat line in the Procfile"),
    )


def _heartbeats_of(stats: Stats, kind: Heartbeat.Kind, **texts: str) -> Iterator[Problem]:
    statuses = [status for status in stats.heartbeats if status.heartbeat.kind == kind]
    stale = [status for status in statuses if status.is_stale]
    name, url = kind.name.lower(), list_url(Heartbeat)
    if len(stale) == len(statuses):
        text = texts["none"]
        if stale:
            text = texts["all_stale"].format(age=format_age(min(status.age for status in stale)))
        yield Problem(f"{name}_down", Severity.CRITICAL, text, texts["start"], url)
    elif stale:
        text = texts["some_stale"].format(names=", ".join(status.heartbeat.name for status in stale))
        yield Problem(f"{name}_stale", Severity.WARNING, text, heartbeat_remedy(stale[0]), url)


def heartbeat_remedy(status: HeartbeatStatus) -> str:
    """Return the remedy for a stale process; empty for any other."""
    return _("check whether the process is running, and read its log") if status.is_stale else ""


def _backlog_problem(cause: str, count: CappedCount, text: str, remedy: str, url: str) -> Problem:
    """Return the problem that `count` rows require an operator; `text` has {n} for the number."""
    return Problem(cause, Severity.WARNING, text.format(n=count), remedy, url, magnitude=count.number)


def _failed(stats: Stats) -> Iterator[Problem]:
    if stats.failed:
        text = ngettext(
            "{n} webhook has failed and needs an operator",
            "{n} webhooks have failed and need an operator",
            stats.failed.number,
        )
        remedy = _("read the error in the admin, fix its cause, then run manage.py replay --failed")
        yield _backlog_problem("failed", stats.failed, text, remedy, webhooks_url(Webhook.Status.FAILED))


def _conflicts(stats: Stats) -> Iterator[Problem]:
    if stats.conflicts:
        text = ngettext(
            "{n} conflicting delivery is not resolved",
            "{n} conflicting deliveries are not resolved",
            stats.conflicts.number,
        )
        remedy = _("compare both deliveries in the admin, ask the bank, then resolve the conflict")
        yield _backlog_problem("conflicts", stats.conflicts, text, remedy, conflicts_url())


def _unrecognized(stats: Stats) -> Iterator[Problem]:
    if stats.unrecognized:
        text = ngettext(
            "{n} unrecognized delivery is open and may be a payment missing from a balance",
            "{n} unrecognized deliveries are open and may be payments missing from a balance",
            stats.unrecognized.number,
        )
        remedy = _("read the reason in the admin; process again once the adapter supports it, or dismiss")
        yield _backlog_problem("unrecognized", stats.unrecognized, text, remedy, unrecognized_url())


def _suspected_duplicates(stats: Stats) -> Iterator[Problem]:
    if stats.suspected_duplicates:
        text = ngettext(
            "{n} suspected duplicate is open: a payment may be credited twice, or held without need",
            "{n} suspected duplicates are open: payments may be credited twice, or held without need",
            stats.suspected_duplicates.number,
        )
        remedy = _("compare both payments in the admin with the bank's statement, then decide")
        count, url = stats.suspected_duplicates, suspected_duplicates_url()
        yield _backlog_problem("suspected_duplicates", count, text, remedy, url)


def _verification_overdue(stats: Stats) -> Iterator[Problem]:
    if stats.verified_at and not is_verification_current(stats):
        text = _("The ledger has not been verified for {age}")
        yield Problem(
            "verification_overdue",
            Severity.WARNING,
            text.format(age=format_age(stats.now - stats.verified_at)),
            _("the scheduler's log has the reason; manage.py verify_ledger verifies the ledger now"),
            list_url(LedgerVerification),
        )


def is_suspense_overdue(stats: Stats) -> bool:
    age = stats.suspense_age
    return age is not None and age > timedelta(days=settings.SUSPENSE_ALERT_AFTER_DAYS)


def _suspense_overdue(stats: Stats) -> Iterator[Problem]:
    if stats.suspense_age and is_suspense_overdue(stats):
        count = stats.unassigned.count
        text = ngettext(
            "{n} payment waits in suspense for an organization, for {age}",
            "{n} payments wait in suspense for an organization, the first for {age}",
            count,
        )
        yield Problem(
            "suspense_overdue",
            Severity.WARNING,
            text.format(n=group_digits(count), age=format_duration(stats.suspense_age.total_seconds())),
            _("find out whom each was paid for, and assign it in the admin"),
            list_url(UnassignedPayment),
            magnitude=count,
        )


def _broker() -> Iterator[Problem]:
    try:
        queued_messages()
    except Exception:  # noqa: BLE001 each transport has exceptions of its own
        text = _("The broker does not respond")
        yield Problem("broker_unreachable", Severity.WARNING, text, broker_remedy())


def queued_messages() -> dict[str, int]:
    """Return the number of messages in each of the broker's queues. Raise what the transport raises."""
    with doorbell.broker_connection(current_app) as broker:
        return {queue: doorbell.queue_length(current_app, broker, queue) for queue in current_app.amqp.queues}


def broker_remedy() -> str:
    return _(
        "check that the broker runs and REDIS_URL is right; until then only the scheduler applies webhooks"
    )


def database_remedy() -> str:
    return _("check that the server is running and DATABASE_URL is right")


def _cluster() -> Iterator[Problem]:
    nodes = cluster.status()
    if nodes.missing:
        text = _("The database cluster has {online} of {listed} nodes")
        message = text.format(online=nodes.online, listed=nodes.listed)
        yield Problem(
            "cluster_degraded", Severity.WARNING, message, cluster_remedy(), magnitude=nodes.missing
        )


def cluster_remedy() -> str:
    return _("start the missing node; until then the loss of another one may end all writes")


def _database_settings() -> Iterator[Problem]:
    messages = run_checks(databases=["default"], tags=["database"])
    serious = [message for message in messages if message.is_serious() and not message.is_silenced()]
    if serious:
        text = _("The database server's settings are unsafe: {what}")
        yield Problem(
            "unsafe_database_settings",
            Severity.CRITICAL,
            text.format(what="; ".join(str(message.msg) for message in serious)),
            "; ".join(str(message.hint) for message in serious if message.hint) or "docs/deployment.md",
        )


def _inbox() -> Iterator[Problem]:
    """Probe a write, because the stored rows do not show that no new one can be stored."""
    if error := inbox_write_error():
        text = _("No webhook can be stored, and deliveries are answered 503: {error}")
        yield Problem("inbox_write_failed", Severity.CRITICAL, text.format(error=error), storage_remedy())


def inbox_write_error() -> str:
    """Return the database's error for a webhook's INSERT; empty if it succeeds."""
    try:
        inbox.probe_write()
    except (DatabaseError, InterfaceError) as exc:
        return db_message(exc)
    return ""


def db_message(error: Exception) -> str:
    """Return the database's message without its error number."""
    return redact_urls(str(error.args[-1])) if error.args else type(error).__name__


def storage_remedy() -> str:
    return _("check that the database's disk has free space and that no session has locked the table")


def webhooks_url(status: Webhook.Status) -> str:
    return list_url(Webhook, status__exact=status.value)


def unrecognized_url() -> str:
    return list_url(UnrecognizedDelivery, state="open")


def suspected_duplicates_url() -> str:
    return list_url(SuspectedDuplicate, state__exact=SuspectedDuplicate.State.OPEN.value)


def conflicts_url() -> str:
    return list_url(ConflictingDelivery, resolved_by__isempty="1")


def recent_deliveries_url(model: Any, stats: Stats) -> str:
    """Return the list of the last day's deliveries of this model."""
    return list_url(model, received_at__gte=f"{stats.now - DAY:%Y-%m-%d %H:%M:%S%z}")
