"""What `manage.py doctor` looks at, one function for each part of the house.

Each says what it found, and what to do where something is to be done. A part that can't be looked at is a
finding too.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, InterfaceError, connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from core.db import clock
from core.observability.url_credentials import redact_urls
from monitoring import problems
from monitoring.format_duration import format_duration
from monitoring.stats import Stats
from worker.models import Heartbeat
from worker.trial_posting import trial_error

CLOCK_SKEW_MAX = timedelta(seconds=2)
REDO_LOG_BYTES_MIN = 2**30


@dataclass(frozen=True)
class Finding:
    part: str
    found: str
    remedy: str = ""  # empty: all is well


Look = Callable[[], Iterator[Finding]]


def examine() -> Iterator[Finding]:
    """Every finding, as it is made. Where the database doesn't answer the parts that ask it are left out."""
    yield from _settings()
    yield from _broker()
    try:
        for look in (_database, _redo_log, _clock, _inbox, _posting, _rows):
            yield from look()
    except (DatabaseError, InterfaceError, ImproperlyConfigured) as fault:
        remedy = _see("database_unreachable", problems.database_remedy())
        yield Finding("database", problems.db_message(fault), remedy)


def _settings() -> Iterator[Finding]:
    """Django's checks and ours; in production those of a deployment, secrets among them, too."""
    findings = list(_checked("settings", include_deployment_checks=not settings.DEBUG))
    yield from findings
    if not _to_do(findings):
        yield Finding("settings", "development's stand-ins" if settings.DEBUG else "fit for production")


def _checked(part: str, **which: Any) -> Iterator[Finding]:
    """What `manage.py check` says; from a warning on there is something to do."""
    for message in checks.run_checks(**which):
        if not message.is_silenced():
            remedy = message.hint or "see docs/deployment.md"
            is_well = message.level < checks.WARNING
            yield Finding(part, f"{message.msg} ({message.id})", "" if is_well else remedy)


def _to_do(findings: list[Finding]) -> bool:
    return any(finding.remedy for finding in findings)


def _broker() -> Iterator[Finding]:
    try:
        waiting = problems.queued_messages()
    except Exception as fault:  # noqa: BLE001 each transport has errors of its own
        remedy = _see("broker_unreachable", problems.broker_remedy())
        yield Finding("broker", f"does not answer: {redact_urls(str(fault))}", remedy)
    else:
        found = "answers; {celery} rings, {attempts} attempts and {acts} acts wait"
        yield Finding("broker", found.format_map(waiting))


def _database() -> Iterator[Finding]:
    findings = list(_checked("database", databases=["default"], tags=["database"]))
    yield from findings
    executor = MigrationExecutor(connection)
    if missing := len(executor.migration_plan(executor.loader.graph.leaf_nodes())):
        yield Finding("database", f"{missing} migrations are missing", "manage.py migrate")
    elif not _to_do(findings):
        version = ".".join(map(str, connection.get_database_version()))
        yield Finding("database", f"{connection.display_name} {version}, up to date")


def _redo_log() -> Iterator[Finding]:
    """With a small one a server writes the pages of its large indexes again and again."""
    if connection.vendor != "mysql":
        return
    name = "innodb_log_file_size" if connection.display_name == "MariaDB" else "innodb_redo_log_capacity"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT @@{name}")
        size = cursor.fetchone()[0]
    remedy = f"set {name} to 1G or more; docs/deployment.md says why" if size < REDO_LOG_BYTES_MIN else ""
    yield Finding("database", f"its redo log holds {size // 2**20} MiB", remedy)


def _clock() -> Iterator[Finding]:
    apart = abs(timezone.now() - clock.database_now())
    found = f"{apart.total_seconds():.1f} seconds from the database's"
    yield Finding("clock", found, "set both machines by NTP" if apart > CLOCK_SKEW_MAX else "")


def _inbox() -> Iterator[Finding]:
    fault = problems.inbox_write_error()
    found = f"takes no webhook: {fault}" if fault else "takes webhooks"
    yield Finding("inbox", found, _see("refused", problems.storage_remedy()) if fault else "")


def _posting() -> Iterator[Finding]:
    fault = trial_error()
    found = f"a trial posting fails: {problems.db_message(fault)}" if fault else "posts a trial webhook"
    yield Finding("ledger", found, _see("posting_failing", problems.posting_remedy()) if fault else "")


def _see(cause: str, remedy: str) -> str:
    """With where the runbook goes on; empty if there is nothing to do."""
    return remedy and f"{remedy} ({problems.runbook_entry(cause)})"


def _rows() -> Iterator[Finding]:
    """Who works, what waits, and what was found at the last verification."""
    told = Stats(clock.database_now())
    remedy = {one.cause: _see(one.cause, one.remedy) for one in problems.data_problems(told)}
    for kind in Heartbeat.Kind:
        signs = [sign for sign in told.signs if sign.beat.kind == kind]
        for sign in signs:
            found = f"{sign.beat.name}, last heard of {sign.age.total_seconds():.0f} seconds ago"
            advice = _see(f"{kind.name.lower()}_stale", problems.heartbeat_remedy(sign))
            yield Finding(kind.name.lower(), found, advice)
        if not signs:
            found = "none is known to run"
            yield Finding(kind.name.lower(), found, remedy[f"{kind.name.lower()}_down"])
    waiting = (
        f"; the oldest for {format_duration(told.oldest_pending_seconds)}"
        if told.oldest_pending_seconds is not None
        else ""
    )
    found = f"{told.backlog} webhooks wait to be applied{waiting}"
    yield Finding("inbox", found, remedy.get(problems.STALLED, ""))
    yield Finding("inbox", f"{told.failed} webhooks are failed", remedy.get("failed", ""))
    yield Finding("inbox", f"{told.conflicts} conflicts are open", remedy.get("conflicts", ""))
    found = f"{told.unrecognized} unrecognized deliveries are open"
    yield Finding("inbox", found, remedy.get("unrecognized", ""))
    names = ", ".join(f"{one.setting} ({one.detail})" for one in told.misconfigurations)
    yield Finding(
        "inbox", f"refused because of settings: {names or 'nothing'}", remedy.get("misconfigured", "")
    )
    found = "was never verified"
    if last := told.verification:
        result = last.drift.partition("\n")[0] or "all is right"
        found = f"verified at {last.ended_at:%Y-%m-%d %H:%M} UTC: {result}"
    yield Finding("ledger", found, remedy.get("drift") or remedy.get("verification_overdue", ""))
