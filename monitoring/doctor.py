"""What `manage.py doctor` looks at, one function for each part of the house.

Each says what it found, and what to do where something is to be done. A part that can't be looked at is a
finding too.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from celery import current_app
from django.conf import settings
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, InterfaceError, connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from ingest import doorbell
from monitoring import figures
from worker import clock
from worker.models import Beat

CLOCKS_APART_MAX = timedelta(seconds=2)
WAITING_MAX = timedelta(seconds=60)
VERIFIED_WITHIN = timedelta(days=1)


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
        for look in (_database, _clock, _workers, _scheduler, _money, _verification):
            yield from look()
    except (DatabaseError, InterfaceError, ImproperlyConfigured) as fault:
        told = str(fault.args[-1]) if fault.args else repr(fault)
        yield Finding("database", told, "see that the server runs, and that DATABASE_URL is right")


def _settings() -> Iterator[Finding]:
    """Django's checks and ours; in production those of a deployment, secrets among them, too."""
    messages = run_checks(include_deployment_checks=not settings.DEBUG)
    for message in messages:
        yield Finding("settings", f"{message.msg} ({message.id})", message.hint or "see docs/deployment.md")
    if not messages:
        yield Finding("settings", "development's stand-ins" if settings.DEBUG else "fit for production")


def _broker() -> Iterator[Finding]:
    try:
        with current_app.connection_for_write(transport_options=doorbell.BROKER_OPTIONS) as broker:
            rings = doorbell.waiting(current_app, broker, current_app.conf.task_default_queue)
            due = doorbell.waiting(current_app, broker, "attempts")
    except Exception as fault:  # noqa: BLE001 each transport has errors of its own
        to_do = "see that Redis runs, and that REDIS_URL is right; meanwhile the scheduler alone applies"
        yield Finding("broker", f"does not answer: {fault}", to_do)
    else:
        yield Finding("broker", f"answers; {rings} rings and {due} attempts wait")


def _database() -> Iterator[Finding]:
    messages = run_checks(databases=["default"], tags=["database"])
    for message in messages:
        yield Finding("database", f"{message.msg} ({message.id})", message.hint or "see docs/deployment.md")
    executor = MigrationExecutor(connection)
    if missing := len(executor.migration_plan(executor.loader.graph.leaf_nodes())):
        yield Finding("database", f"{missing} migrations are missing", "manage.py migrate")
    elif not messages:
        version = ".".join(map(str, connection.get_database_version()))
        yield Finding("database", f"{connection.display_name} {version}, up to date")


def _clock() -> Iterator[Finding]:
    apart = abs(timezone.now() - clock.now())
    found = f"{apart.total_seconds():.1f} seconds from the database's"
    yield Finding("clock", found, "set both machines by NTP" if apart > CLOCKS_APART_MAX else "")


def _workers() -> Iterator[Finding]:
    yield from _beats(Beat.Kind.WORKER, "start one: see the worker's line in the Procfile")


def _scheduler() -> Iterator[Finding]:
    yield from _beats(Beat.Kind.SCHEDULER, "start one: see the beat line in the Procfile")


def _beats(kind: Beat.Kind, to_start: str) -> Iterator[Finding]:
    signs = [sign for sign in figures.signs(clock.now()) if sign.beat.kind == kind]
    for sign in signs:
        found = f"{sign.beat.name}, last heard of {sign.age.total_seconds():.0f} seconds ago"
        yield Finding(kind.name.lower(), found, "see whether it runs, and its log" if sign.is_silent else "")
    if not signs:
        yield Finding(kind.name.lower(), "none was heard of within the hour", to_start)


def _money() -> Iterator[Finding]:
    since, backlog = figures.waiting_since(), figures.backlog()
    late = since is not None and clock.now() - since > WAITING_MAX
    waiting = f"; the oldest was received at {since:%Y-%m-%d %H:%M:%S} UTC" if since else ""
    to_do = "see workers and broker above; more workers apply more at once" if late else ""
    yield Finding("inbox", f"{backlog} webhooks wait to be applied{waiting}", to_do)
    failed = figures.failed()
    to_do = "read why in the admin, repair the cause, then manage.py replay --failed" if failed else ""
    yield Finding("inbox", f"{failed} webhooks are failed", to_do)


def _verification() -> Iterator[Finding]:
    last = figures.last_verification()
    if last is None:
        yield Finding("ledger", "was never verified", "manage.py verify_ledger, and daily by cron")
        return
    age = clock.now() - last.ended_at
    found = f"verified at {last.ended_at:%Y-%m-%d %H:%M} UTC: {last.drift or 'all is right'}"
    to_do = "manage.py verify_ledger, and daily by cron" if age > VERIFIED_WITHIN else ""
    if last.drift:
        yield Finding(
            "ledger",
            found,
            "find out who else writes to the database; a backup has the books before",
        )
    else:
        yield Finding("ledger", found, to_do)
