"""The checks of `manage.py doctor`, one function per component.

Each finding has a remedy if it is a problem. A component that cannot be checked is a finding too.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, InterfaceError, connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from core.db import clock
from core.observability.redaction import redact_urls
from monitoring import cluster, problems
from monitoring.format_duration import format_duration
from monitoring.stats import Stats
from worker.models import Heartbeat
from worker.trial_posting import trial_error

CLOCK_SKEW_MAX = timedelta(seconds=2)
REDO_LOG_BYTES_MIN = 2**30


@dataclass(frozen=True)
class Finding:
    component: str
    message: str
    remedy: str = ""  # empty: not a problem


Check = Callable[[], Iterator[Finding]]


def examine() -> Iterator[Finding]:
    """Yield each finding as it is made; skip the checks that need the database if it does not respond."""
    yield from _settings()
    yield from _broker()
    try:
        for check in (_database, _redo_log, _cluster, _clock, _inbox, _posting, _rows):
            yield from check()
    except (DatabaseError, InterfaceError, ImproperlyConfigured) as exc:
        remedy = _with_runbook("database_unreachable", problems.database_remedy())
        yield Finding("database", problems.db_message(exc), remedy)


def _settings() -> Iterator[Finding]:
    """Run Django's checks and ours; in production the deployment checks too, which include secrets."""
    findings = list(_system_checks("settings", include_deployment_checks=not settings.DEBUG))
    yield from findings
    if not _has_problem(findings):
        yield Finding("settings", "development defaults" if settings.DEBUG else "ready for production")


_BEHIND_TLS_PROXY = "put a TLS proxy in front and set BEHIND_TLS_PROXY=1; see docs/deployment.md"
# Django's deployment checks have no hint, and name settings that follow from one of ours.
_SETTINGS = dict.fromkeys(
    ("security.W004", "security.W008", "security.W012", "security.W016"), _BEHIND_TLS_PROXY
)


def _system_checks(component: str, **options: Any) -> Iterator[Finding]:
    """Run the checks of `manage.py check`; a warning is a problem too."""
    for message in checks.run_checks(**options):
        if not message.is_silenced():
            remedy = message.hint or _SETTINGS.get(message.id or "", "see docs/deployment.md")
            is_problem = message.level >= checks.WARNING
            yield Finding(component, f"{message.msg} ({message.id})", remedy if is_problem else "")


def _has_problem(findings: list[Finding]) -> bool:
    return any(finding.remedy for finding in findings)


def _broker() -> Iterator[Finding]:
    try:
        queued = problems.queued_messages()
    except Exception as exc:  # noqa: BLE001 each transport has exceptions of its own
        remedy = _with_runbook("broker_unreachable", problems.broker_remedy())
        yield Finding("broker", f"does not respond: {redact_urls(str(exc))}", remedy)
    else:
        message = "responds; queued: {celery} rings, {attempts} retries, {operator_actions} operator actions"
        yield Finding("broker", message.format_map(queued))


def _database() -> Iterator[Finding]:
    findings = list(_system_checks("database", databases=["default"], tags=["database"]))
    yield from findings
    executor = MigrationExecutor(connection)
    if missing := len(executor.migration_plan(executor.loader.graph.leaf_nodes())):
        yield Finding("database", f"{missing} migrations are missing", "manage.py migrate")
    elif not _has_problem(findings):
        version = ".".join(map(str, connection.get_database_version()))
        yield Finding("database", f"{connection.display_name} {version}, up to date")


def _redo_log() -> Iterator[Finding]:
    """With a small redo log the server writes the pages of its large indexes repeatedly."""
    if connection.vendor != "mysql":
        return
    name = "innodb_log_file_size" if connection.display_name == "MariaDB" else "innodb_redo_log_capacity"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT @@{name}")
        size = cursor.fetchone()[0]
    remedy = f"set {name} to 1G or more; see docs/deployment.md" if size < REDO_LOG_BYTES_MIN else ""
    yield Finding("database", f"redo log of {size // 2**20} MiB", remedy)


def _cluster() -> Iterator[Finding]:
    nodes = cluster.status()
    if nodes.listed > 1:
        remedy = problems.cluster_remedy() if nodes.missing else ""
        message = f"{nodes.online} of {nodes.listed} nodes, {nodes.conflicts} conflicts"
        yield Finding("cluster", message, _with_runbook("cluster_degraded", remedy))


def _clock() -> Iterator[Finding]:
    skew = abs(timezone.now() - clock.database_now())
    message = f"{skew.total_seconds():.1f} s from the database clock"
    yield Finding("clock", message, "synchronize both machines with NTP" if skew > CLOCK_SKEW_MAX else "")


def _inbox() -> Iterator[Finding]:
    error = problems.inbox_write_error()
    message = f"accepts no webhook: {error}" if error else "accepts webhooks"
    remedy = _with_runbook("inbox_write_failed", problems.storage_remedy()) if error else ""
    yield Finding("inbox", message, remedy)


def _posting() -> Iterator[Finding]:
    error = trial_error()
    message = f"trial posting failed: {problems.db_message(error)}" if error else "trial posting succeeds"
    remedy = _with_runbook("posting_failing", problems.posting_remedy()) if error else ""
    yield Finding("ledger", message, remedy)


def _with_runbook(cause: str, remedy: str) -> str:
    """Append the runbook's entry to a remedy; empty without a remedy."""
    return remedy and f"{remedy} ({problems.runbook_entry(cause)})"


def _rows() -> Iterator[Finding]:
    """Report heartbeats, the inbox and the last verification."""
    stats = Stats(clock.database_now())
    remedies = {one.cause: _with_runbook(one.cause, one.remedy) for one in problems.data_problems(stats)}
    for kind in Heartbeat.Kind:
        name = kind.name.lower()
        statuses = [status for status in stats.heartbeats if status.heartbeat.kind == kind]
        for status in statuses:
            message = f"{status.heartbeat.name}, last heartbeat {status.age.total_seconds():.0f} s ago"
            yield Finding(name, message, _with_runbook(f"{name}_stale", problems.heartbeat_remedy(status)))
        if not statuses:
            yield Finding(name, "none is running", remedies[f"{name}_down"])
    age = stats.oldest_pending_seconds
    oldest = f"; the oldest for {format_duration(age)}" if age is not None else ""
    yield Finding("inbox", f"{stats.backlog} webhooks pending{oldest}", remedies.get(problems.STALLED, ""))
    yield Finding("inbox", f"{stats.failed} webhooks failed", remedies.get("failed", ""))
    yield Finding("inbox", f"{stats.conflicts} conflicts open", remedies.get("conflicts", ""))
    message = f"{stats.unrecognized} unrecognized deliveries open"
    yield Finding("inbox", message, remedies.get("unrecognized", ""))
    message = f"{stats.suspected_duplicates} suspected duplicates open"
    yield Finding("inbox", message, remedies.get("suspected_duplicates", ""))
    names = ", ".join(f"{one.setting} ({one.detail})" for one in stats.misconfigurations)
    message = f"refused because of settings: {names or 'none'}"
    yield Finding("inbox", message, remedies.get("misconfigured", ""))
    message = f"{stats.unassigned.count} payments in suspense"
    yield Finding("ledger", message, remedies.get("suspense_overdue", ""))
    message = "never verified"
    if last := stats.verification:
        result = last.drift.partition("\n")[0] or "no drift"
        message = f"verified at {last.ended_at:%Y-%m-%d %H:%M} UTC: {result}"
    yield Finding("ledger", message, remedies.get("drift") or remedies.get("verification_overdue", ""))
    if stats.uses_statements:
        yield from _statements(stats, remedies)


def _statements(stats: Stats, remedies: Mapping[str, str]) -> Iterator[Finding]:
    """Report the reconciliation, and a time zone in which payments at night fall on the wrong day."""
    zone, days = settings.BANK_TIME_ZONE, settings.STATEMENT_TIME_ZONE
    remedy = f"set BANK_TIME_ZONE={days}, unless the bank's times without an offset are of {zone}"
    message = f"BANK_TIME_ZONE is {zone}, the statements' days are of {days}"
    yield Finding("statements", message, "" if _is_same_zone(zone, days) else remedy)
    for cause, message in {
        "differences_overdue": f"{stats.overdue_differences.count} differences not settled in time",
        "unproven_statements": f"{stats.unproven_statements} statements unproven",
        "uncovered_days": f"{stats.uncovered_days} working days without a proven statement",
        "balance_break": f"{stats.balance_breaks} breaks between balances",
    }.items():
        yield Finding("statements", message, remedies.get(cause, ""))
    message = "never reconciled by the scheduler"
    if last := stats.reconciliation:
        message = f"reconciled at {last.at:%Y-%m-%d %H:%M} UTC: {last.unexplained} kopecks unexplained"
    yield Finding("statements", message, remedies.get("unexplained_difference", ""))


def _is_same_zone(one: ZoneInfo, other: ZoneInfo) -> bool:
    """Return whether both zones have the same offset today, as Europe/Moscow and Etc/GMT-3 do."""
    now = timezone.now()
    return now.astimezone(one).utcoffset() == now.astimezone(other).utcoffset()
