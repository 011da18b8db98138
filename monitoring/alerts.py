"""Says what is wrong, once for each cause, and when it is over: docs/decisions/0020.

Each scheduler and each worker has a thread that looks. They take turns by a row, so that nobody is told twice
however many there are, and a house that lost one kind of them still tells so. A thread, because whoever is
told may be slow to answer: neither sweeping nor applying waits for that.
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
from monitoring.problems import Problem, Severity
from monitoring.stats import Stats

log = structlog.get_logger(__name__)

CHECK_INTERVAL_SECONDS = 20.0
CHECKS_MIN = 3  # in a row, before a cause is told, and before it is said to be over
GROWTH_FACTOR = 10  # times: then it is told again before its time
LEASE = timedelta(minutes=5)  # whoever takes longer over a look is dead, or may as well be


def watch(**_: object) -> None:
    """In a worker's main process."""
    _start(with_database=False)


def watch_all(**_: object) -> None:
    """In the scheduler, which alone tells that the database is away: no row could keep others from it."""
    _start(with_database=True)


@cache
def _start(*, with_database: bool) -> None:
    if notifications.is_configured():
        threading.Thread(target=_watch, args=(with_database,), name="alerts", daemon=True).start()


def _watch(with_database: bool) -> None:  # noqa: FBT001 a thread's argument
    database = DatabaseOutage() if with_database else None
    while True:
        try:
            _look_and_close(database)
        except Exception:  # also of what tells that the database is away: the next look may do better
            log.exception("alert check failed")
        time.sleep(CHECK_INTERVAL_SECONDS)


def _look_and_close(database: "DatabaseOutage | None") -> None:
    try:
        check()
        if database:
            database.answered()
    except (DatabaseError, InterfaceError) as fault:
        log.warning("alert check failed: database unavailable", error=repr(fault))
        if database:
            database.failed()
    finally:
        connection.close()  # a process that is forked from here must not inherit it


class CheckResult(Enum):
    """How a look ended."""

    LEASE_TAKEN = "Somebody else looks, or has just looked."
    DONE = "Looked; whatever was due is told."
    UNDELIVERED = "Looked; nobody could be told what is due. The log says why; the next look tries again."


def check() -> CheckResult:
    """See what is wrong, remember it, and tell what is due. Raises as the database does."""
    if not _acquire_lease():
        return CheckResult.LEASE_TAKEN
    try:
        now = clock.database_now()
        found = [*problems.data_problems(Stats(now)), *problems.server_problems()]
        _remember({trouble.cause: trouble for trouble in found}, now)
        return CheckResult.DONE if _tell_what_is_due(now) else CheckResult.UNDELIVERED
    finally:
        transactions.run_with_retries(_end_turn)  # on a new connection, if that is what failed


def _acquire_lease() -> bool:
    now = clock.database_now()
    if AlertLease.objects.filter(due_at__lte=now).update(due_at=now + LEASE):
        return True
    if not AlertLease.objects.exists():
        AlertLease.objects.bulk_create([AlertLease(pk=1, due_at=now)], ignore_conflicts=True)
        return _acquire_lease()
    return False


def _end_turn() -> None:
    AlertLease.objects.update(due_at=clock.database_now() + timedelta(seconds=CHECK_INTERVAL_SECONDS))


def _remember(found: dict[str, Problem], now: datetime) -> None:
    known = {alert.cause: alert for alert in Alert.objects.all()}
    for cause, trouble in found.items():
        alert = known.get(cause) or Alert(cause=cause, started_at=now)
        alert.level, alert.text, alert.remedy = trouble.level, trouble.text, trouble.remedy
        alert.size, alert.cleared_at, alert.clear_count = trouble.size, None, 0
        alert.looks = min(alert.looks + 1, CHECKS_MIN)
        alert.save()
    for cause in known.keys() - found.keys():
        alert = known[cause]
        if alert.notified_at is None:
            alert.delete()  # it came and went, and nobody was bothered
            continue
        alert.cleared_at = alert.cleared_at or now
        alert.clear_count = min(alert.clear_count + 1, CHECKS_MIN)
        alert.save()


def _tell_what_is_due(now: datetime) -> bool:
    """In one message, so that many causes at once don't take many times as long."""
    due = [
        (alert, state)
        for alert in Alert.objects.order_by("-level", "started_at")
        if (state := _due(alert, now))
    ]
    if not due:
        return True
    if not notifications.send([_news(alert, state, now) for alert, state in due]):
        return False  # still due at the next look
    for alert, state in due:
        log.warning("alert", cause=alert.cause, state=state)
        if state == "over":
            alert.delete()
        else:
            alert.notified_at, alert.notified_magnitude = now, alert.size
            alert.save()
    return True


def _due(alert: Alert, now: datetime) -> str:
    """What is to be told of it now; empty: nothing."""
    if alert.notified_at is None:
        return "new" if alert.looks >= CHECKS_MIN else ""
    if alert.cleared_at:
        return "over" if alert.clear_count >= CHECKS_MIN else ""
    is_old = now - alert.notified_at >= timedelta(hours=settings.ALERT_REPEAT_HOURS)
    return "still" if is_old or alert.size >= GROWTH_FACTOR * alert.notified_magnitude else ""


def _news(alert: Alert, state: str, now: datetime) -> Notification:
    lasts = (alert.cleared_at or now) - alert.started_at
    text = {
        "new": "{text}",
        "still": _("Still, for {age}: {text}"),
        "over": _("Over after {age}. It was: {text}"),
    }[state].format(text=alert.text, age=format_age(lasts))
    level, since = Severity(alert.level).css, alert.started_at.isoformat()
    seconds, runbook = int(lasts.total_seconds()), problems.runbook_entry(alert.cause)
    return Notification(alert.cause, state, level, text, alert.remedy, since, seconds, runbook)


def send_test() -> bool:
    text = _("A trial: this is how you hear from Prihod")
    return notifications.send(
        [Notification("trial", "test", Severity.QUIET.css, text, "", timezone.now().isoformat(), 0)]
    )


class DatabaseOutage:
    """The one cause that can't be kept in a row; a scheduler that starts anew tells it again."""

    def __init__(self) -> None:
        self._looks = 0  # in a row without an answer
        self._began_at = timezone.now()
        self._told = False

    def failed(self) -> None:
        if not self._looks:
            self._began_at = timezone.now()
        self._looks += 1
        if self._looks >= CHECKS_MIN and not self._told:
            self._told = self._tell("new", _("The database does not answer"))

    def answered(self) -> None:
        self._looks = 0
        if self._told:
            age = format_age(timezone.now() - self._began_at)
            text = _("Over after {age}: the database did not answer").format(age=age)
            self._told = not self._tell("over", text)

    def _tell(self, state: str, text: str) -> bool:
        remedy = problems.database_remedy()
        seconds = int((timezone.now() - self._began_at).total_seconds())
        since, runbook = self._began_at.isoformat(), problems.runbook_entry("database_unreachable")
        news = Notification(
            "database_unreachable", state, Severity.CRITICAL.css, text, remedy, since, seconds, runbook
        )
        return notifications.send([news])
