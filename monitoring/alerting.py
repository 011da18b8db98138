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

from monitoring import telling, troubles
from monitoring.durations import age_of
from monitoring.figures import Figures
from monitoring.models import Alert, Watch
from monitoring.telling import News
from monitoring.troubles import Level, Trouble
from worker import clock, transactions

log = structlog.get_logger(__name__)

EVERY_SECONDS = 20.0
LOOKS_MIN = 3  # in a row, before a cause is told, and before it is said to be over
GROWN_BY = 10  # times: then it is told again before its time
LEASE = timedelta(minutes=5)  # whoever takes longer over a look is dead, or may as well be


def watch(**_: object) -> None:
    """In a worker's main process."""
    _start(with_database=False)


def watch_all(**_: object) -> None:
    """In the scheduler, which alone tells that the database is away: no row could keep others from it."""
    _start(with_database=True)


@cache
def _start(*, with_database: bool) -> None:
    if telling.is_wanted():
        threading.Thread(target=_watch, args=(with_database,), name="alerts", daemon=True).start()


def _watch(with_database: bool) -> None:  # noqa: FBT001 a thread's argument
    database = DatabaseWatch() if with_database else None
    while True:
        try:
            _look_and_close(database)
        except Exception:  # also of what tells that the database is away: the next look may do better
            log.exception("a look for troubles failed")
        time.sleep(EVERY_SECONDS)


def _look_and_close(database: "DatabaseWatch | None") -> None:
    try:
        look()
        if database:
            database.answered()
    except (DatabaseError, InterfaceError) as fault:
        log.warning("the database tells of no troubles", error=repr(fault))
        if database:
            database.failed()
    finally:
        connection.close()  # a process that is forked from here must not inherit it


class Looked(Enum):
    """How a look ended."""

    NOT_OUR_TURN = "Somebody else looks, or has just looked."
    ALL_IS_TOLD = "Looked; whatever was due is told."
    NOBODY_TOOK_IT = "Looked; nobody could be told what is due. The log says why; the next look tries again."


def look() -> Looked:
    """See what is wrong, remember it, and tell what is due. Raises as the database does."""
    if not _take_turn():
        return Looked.NOT_OUR_TURN
    try:
        now = clock.now()
        found = [*troubles.of_rows(Figures(now)), *troubles.of_servers()]
        _remember({trouble.cause: trouble for trouble in found}, now)
        return Looked.ALL_IS_TOLD if _tell_what_is_due(now) else Looked.NOBODY_TOOK_IT
    finally:
        transactions.run(_end_turn)  # on a new connection, if that is what failed


def _take_turn() -> bool:
    now = clock.now()
    if Watch.objects.filter(due_at__lte=now).update(due_at=now + LEASE):
        return True
    if not Watch.objects.exists():
        Watch.objects.bulk_create([Watch(pk=1, due_at=now)], ignore_conflicts=True)
        return _take_turn()
    return False


def _end_turn() -> None:
    Watch.objects.update(due_at=clock.now() + timedelta(seconds=EVERY_SECONDS))


def _remember(found: dict[str, Trouble], now: datetime) -> None:
    known = {alert.cause: alert for alert in Alert.objects.all()}
    for cause, trouble in found.items():
        alert = known.get(cause) or Alert(cause=cause, began_at=now)
        alert.level, alert.text, alert.to_do = trouble.level, trouble.text, trouble.to_do
        alert.size, alert.gone_at, alert.looks_without = trouble.size, None, 0
        alert.looks = min(alert.looks + 1, LOOKS_MIN)
        alert.save()
    for cause in known.keys() - found.keys():
        alert = known[cause]
        if alert.told_at is None:
            alert.delete()  # it came and went, and nobody was bothered
            continue
        alert.gone_at = alert.gone_at or now
        alert.looks_without = min(alert.looks_without + 1, LOOKS_MIN)
        alert.save()


def _tell_what_is_due(now: datetime) -> bool:
    """In one message, so that many causes at once don't take many times as long."""
    due = [
        (alert, state)
        for alert in Alert.objects.order_by("-level", "began_at")
        if (state := _due(alert, now))
    ]
    if not due:
        return True
    if not telling.deliver([_news(alert, state, now) for alert, state in due]):
        return False  # still due at the next look
    for alert, state in due:
        log.warning("alert", cause=alert.cause, state=state)
        if state == "over":
            alert.delete()
        else:
            alert.told_at, alert.told_size = now, alert.size
            alert.save()
    return True


def _due(alert: Alert, now: datetime) -> str:
    """What is to be told of it now; empty: nothing."""
    if alert.told_at is None:
        return "new" if alert.looks >= LOOKS_MIN else ""
    if alert.gone_at:
        return "over" if alert.looks_without >= LOOKS_MIN else ""
    is_old = now - alert.told_at >= timedelta(hours=settings.ALERT_REPEAT_HOURS)
    return "still" if is_old or alert.size >= GROWN_BY * alert.told_size else ""


def _news(alert: Alert, state: str, now: datetime) -> News:
    lasts = (alert.gone_at or now) - alert.began_at
    text = {
        "new": "{text}",
        "still": _("Still, for {age}: {text}"),
        "over": _("Over after {age}. It was: {text}"),
    }[state].format(text=alert.text, age=age_of(lasts))
    level, since = Level(alert.level).css, alert.began_at.isoformat()
    seconds, runbook = int(lasts.total_seconds()), troubles.runbook(alert.cause)
    return News(alert.cause, state, level, text, alert.to_do, since, seconds, runbook)


def tell_trial() -> bool:
    text = _("A trial: this is how you hear from Prihod")
    return telling.deliver([News("trial", "test", Level.QUIET.css, text, "", timezone.now().isoformat(), 0)])


class DatabaseWatch:
    """The one cause that can't be kept in a row; a scheduler that starts anew tells it again."""

    def __init__(self) -> None:
        self._looks = 0  # in a row without an answer
        self._began_at = timezone.now()
        self._told = False

    def failed(self) -> None:
        if not self._looks:
            self._began_at = timezone.now()
        self._looks += 1
        if self._looks >= LOOKS_MIN and not self._told:
            self._told = self._tell("new", _("The database does not answer"))

    def answered(self) -> None:
        self._looks = 0
        if self._told:
            age = age_of(timezone.now() - self._began_at)
            text = _("Over after {age}: the database did not answer").format(age=age)
            self._told = not self._tell("over", text)

    def _tell(self, state: str, text: str) -> bool:
        to_do = troubles.see_to_database()
        seconds = int((timezone.now() - self._began_at).total_seconds())
        since, runbook = self._began_at.isoformat(), troubles.runbook("no database")
        news = News("no database", state, Level.BAD.css, text, to_do, since, seconds, runbook)
        return telling.deliver([news])
