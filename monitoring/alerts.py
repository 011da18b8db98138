"""Detect problems periodically, store them, and notify people of changes: docs/decisions/0020.

Every worker and scheduler runs a checker thread. A lease row elects one per interval, so each alert is sent
once, and the loss of either kind of process is still reported. A separate thread keeps a slow recipient from
delaying sweeps and batches.
"""

import threading
import time
from datetime import datetime, timedelta
from enum import Enum
from functools import cache

import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection
from django.utils import timezone
from django.utils.translation import gettext as _

from core.db import clock, transactions
from monitoring import notifications, problems
from monitoring.format_duration import format_age
from monitoring.models import Alert, AlertLease
from monitoring.notifications import Notification
from monitoring.problem import Problem, Severity
from monitoring.stats import Stats

log = structlog.get_logger(__name__)

CHECK_INTERVAL_SECONDS = 20.0
CHECKS_MIN = 3  # consecutive checks before a problem fires, and before it is resolved
GROWTH_FACTOR = 10  # growth in magnitude that repeats an alert early
LEASE = timedelta(minutes=5)  # a longer check counts as dead


def start_in_worker(**_: object) -> None:
    """Start the checker thread in a worker's main process."""
    _start(with_database=False)


def start_in_scheduler(**_: object) -> None:
    """Start the checker thread in the scheduler.

    Only the scheduler reports an unreachable database: without the lease row every process would send it.
    """
    _start(with_database=True)


@cache
def _start(*, with_database: bool) -> None:
    if notifications.is_configured():
        threading.Thread(target=_run, args=(with_database,), name="alerts", daemon=True).start()


def _run(with_database: bool) -> None:  # noqa: FBT001 a thread's argument
    outage = DatabaseOutage() if with_database else None
    while True:
        try:
            _check_and_close(outage)
        except Exception:  # of the outage's notification too: the next check may succeed
            log.exception("alert check failed")
        time.sleep(CHECK_INTERVAL_SECONDS)


def _check_and_close(outage: "DatabaseOutage | None") -> None:
    try:
        check()
        if outage:
            outage.record_success()
    except (DatabaseError, InterfaceError) as exc:
        log.warning("alert check failed: database unavailable", error=repr(exc))
        if outage:
            outage.record_failure()
    finally:
        connection.close()  # a process that is forked from here must not inherit it


class CheckResult(Enum):
    LEASE_TAKEN = "Another process is running a check, or has just finished one."
    DONE = "Checked; all due alerts are sent."
    UNDELIVERED = "Checked; no recipient accepted the due alerts. See the log; the next check retries."


def check() -> CheckResult:
    """Detect and store problems, and send the alerts that are due. Raise the database's errors."""
    if not _acquire_lease():
        return CheckResult.LEASE_TAKEN
    try:
        now = clock.database_now()
        found = [*problems.data_problems(Stats(now)), *problems.server_problems()]
        _store({problem.cause: problem for problem in found}, now)
        return CheckResult.DONE if _send_due(now) else CheckResult.UNDELIVERED
    finally:
        transactions.run_with_retries(_release_lease)  # reconnects if the connection has failed


def _acquire_lease() -> bool:
    now = clock.database_now()
    if AlertLease.objects.filter(due_at__lte=now).update(due_at=now + LEASE):
        return True
    if not AlertLease.objects.exists():
        AlertLease.objects.bulk_create([AlertLease(pk=1, due_at=now)], ignore_conflicts=True)
        return _acquire_lease()
    return False


def _release_lease() -> None:
    AlertLease.objects.update(due_at=clock.database_now() + timedelta(seconds=CHECK_INTERVAL_SECONDS))


def _store(found: dict[str, Problem], now: datetime) -> None:
    known = {alert.cause: alert for alert in Alert.objects.all()}
    for cause, problem in found.items():
        alert = known.get(cause) or Alert(cause=cause, started_at=now)
        alert.severity, alert.text, alert.remedy = problem.severity, problem.text, problem.remedy
        alert.magnitude, alert.cleared_at, alert.clear_count = problem.magnitude, None, 0
        alert.seen_count = min(alert.seen_count + 1, CHECKS_MIN)
        alert.save()
    for cause in known.keys() - found.keys():
        alert = known[cause]
        if alert.notified_at is None:
            alert.delete()  # it disappeared before it fired
            continue
        alert.cleared_at = alert.cleared_at or now
        alert.clear_count = min(alert.clear_count + 1, CHECKS_MIN)
        alert.save()


def _send_due(now: datetime) -> bool:
    """Send all due alerts in one message, so that many causes don't multiply the recipients' time-outs.

    Return whether a recipient accepted it, or none was due.
    """
    due = [
        (alert, state)
        for alert in Alert.objects.order_by("-severity", "started_at")
        if (state := _due_state(alert, now))
    ]
    if not due:
        return True
    if not notifications.send([_notification(alert, state, now) for alert, state in due]):
        return False  # still due at the next check
    for alert, state in due:
        log.warning("alert sent", cause=alert.cause, state=state)
        if state == "resolved":
            alert.delete()
        else:
            alert.notified_at, alert.notified_magnitude = now, alert.magnitude
            alert.save()
    return True


def _due_state(alert: Alert, now: datetime) -> str:
    """Return the state to send now; empty if no notification is due."""
    if alert.notified_at is None:
        return "firing" if alert.seen_count >= CHECKS_MIN else ""
    if alert.cleared_at:
        return "resolved" if alert.clear_count >= CHECKS_MIN else ""
    is_old = now - alert.notified_at >= timedelta(hours=settings.ALERT_REPEAT_HOURS)
    return "repeated" if is_old or alert.magnitude >= GROWTH_FACTOR * alert.notified_magnitude else ""


def _notification(alert: Alert, state: str, now: datetime) -> Notification:
    duration = (alert.cleared_at or now) - alert.started_at
    text = {
        "firing": "{text}",
        "repeated": _("For {age} now: {text}"),
        "resolved": _("Resolved after {age}: {text}"),
    }[state].format(text=alert.text, age=format_age(duration))
    return Notification(
        alert.cause,
        state,
        Severity(alert.severity).label,
        text,
        alert.remedy,
        alert.started_at.isoformat(),
        int(duration.total_seconds()),
        problems.runbook_entry(alert.cause),
    )


def send_test() -> bool:
    """Send a test message; return whether a recipient accepted it."""
    text = _("A test message: Prihod sends its alerts this way")
    now = timezone.now().isoformat()
    return notifications.send([Notification("test", "test", Severity.INFO.label, text, "", now, 0)])


class DatabaseOutage:
    """The state of the one alert that no row can store; a restarted scheduler sends it again."""

    def __init__(self) -> None:
        self._failures = 0  # consecutive
        self._started_at = timezone.now()
        self._is_notified = False

    def record_failure(self) -> None:
        if not self._failures:
            self._started_at = timezone.now()
        self._failures += 1
        if self._failures >= CHECKS_MIN and not self._is_notified:
            self._is_notified = self._send("firing", _("The database does not respond"))

    def record_success(self) -> None:
        self._failures = 0
        if self._is_notified:
            age = format_age(timezone.now() - self._started_at)
            text = _("Resolved after {age}: the database did not respond").format(age=age)
            self._is_notified = not self._send("resolved", text)

    def _send(self, state: str, text: str) -> bool:
        cause, remedy = "database_unreachable", problems.database_remedy()
        seconds = int((timezone.now() - self._started_at).total_seconds())
        started_at, runbook = self._started_at.isoformat(), problems.runbook_entry(cause)
        severity = Severity.CRITICAL.label
        return notifications.send(
            [Notification(cause, state, severity, text, remedy, started_at, seconds, runbook)]
        )
