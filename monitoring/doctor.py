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

from api.redaction import redact
from monitoring import troubles
from monitoring.durations import duration
from monitoring.figures import Figures
from worker import clock
from worker.models import Beat
from worker.trial import posting_fault

CLOCKS_APART_MAX = timedelta(seconds=2)
REDO_LOG_BYTES_MIN = 2**30


@dataclass(frozen=True)
class Finding:
    part: str
    found: str
    to_do: str = ""  # empty: all is well


Look = Callable[[], Iterator[Finding]]


def examine() -> Iterator[Finding]:
    """Every finding, as it is made. Where the database doesn't answer the parts that ask it are left out."""
    yield from _settings()
    yield from _broker()
    try:
        for look in (_database, _redo_log, _clock, _inbox, _posting, _rows):
            yield from look()
    except (DatabaseError, InterfaceError, ImproperlyConfigured) as fault:
        to_do = _see("no database", troubles.see_to_database())
        yield Finding("database", troubles.said_by(fault), to_do)


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
            to_do = message.hint or "see docs/deployment.md"
            is_well = message.level < checks.WARNING
            yield Finding(part, f"{message.msg} ({message.id})", "" if is_well else to_do)


def _to_do(findings: list[Finding]) -> bool:
    return any(finding.to_do for finding in findings)


def _broker() -> Iterator[Finding]:
    try:
        waiting = troubles.waiting_messages()
    except Exception as fault:  # noqa: BLE001 each transport has errors of its own
        to_do = _see("no broker", troubles.see_to_broker())
        yield Finding("broker", f"does not answer: {redact(str(fault))}", to_do)
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
    to_do = f"set {name} to 1G or more; docs/deployment.md says why" if size < REDO_LOG_BYTES_MIN else ""
    yield Finding("database", f"its redo log holds {size // 2**20} MiB", to_do)


def _clock() -> Iterator[Finding]:
    apart = abs(timezone.now() - clock.now())
    found = f"{apart.total_seconds():.1f} seconds from the database's"
    yield Finding("clock", found, "set both machines by NTP" if apart > CLOCKS_APART_MAX else "")


def _inbox() -> Iterator[Finding]:
    fault = troubles.refused()
    found = f"takes no webhook: {fault}" if fault else "takes webhooks"
    yield Finding("inbox", found, _see("refused", troubles.see_to_storage()) if fault else "")


def _posting() -> Iterator[Finding]:
    fault = posting_fault()
    found = f"a trial posting fails: {troubles.said_by(fault)}" if fault else "posts a trial webhook"
    yield Finding("ledger", found, _see("posting fails", troubles.see_to_posting()) if fault else "")


def _see(cause: str, to_do: str) -> str:
    """With where the runbook goes on; empty if there is nothing to do."""
    return to_do and f"{to_do} ({troubles.runbook(cause)})"


def _rows() -> Iterator[Finding]:
    """Who works, what waits, and what was found at the last verification."""
    told = Figures(clock.now())
    to_do = {one.cause: _see(one.cause, one.to_do) for one in troubles.of_rows(told)}
    for kind in Beat.Kind:
        signs = [sign for sign in told.signs if sign.beat.kind == kind]
        for sign in signs:
            found = f"{sign.beat.name}, last heard of {sign.age.total_seconds():.0f} seconds ago"
            advice = _see(f"silent {kind.name.lower()}", troubles.see_to(sign))
            yield Finding(kind.name.lower(), found, advice)
        if not signs:
            found = "none is known to run"
            yield Finding(kind.name.lower(), found, to_do[f"no {kind.name.lower()}"])
    waiting = f"; the oldest for {duration(told.waiting_seconds)}" if told.waiting_seconds is not None else ""
    found = f"{told.backlog} webhooks wait to be applied{waiting}"
    yield Finding("inbox", found, to_do.get(troubles.STALLED, ""))
    yield Finding("inbox", f"{told.failed} webhooks are failed", to_do.get("failed", ""))
    yield Finding("inbox", f"{told.conflicts} conflicts are open", to_do.get("conflicts", ""))
    found = f"{told.unrecognized} unrecognized deliveries are open"
    yield Finding("inbox", found, to_do.get("unrecognized", ""))
    names = ", ".join(f"{one.setting} ({one.detail})" for one in told.misconfigurations)
    yield Finding(
        "inbox", f"refused because of settings: {names or 'nothing'}", to_do.get("misconfigured", "")
    )
    found = "was never verified"
    if last := told.verification:
        result = last.drift.partition("\n")[0] or "all is right"
        found = f"verified at {last.ended_at:%Y-%m-%d %H:%M} UTC: {result}"
    yield Finding("ledger", found, to_do.get("drift") or to_do.get("not verified", ""))
