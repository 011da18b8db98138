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

from api.redaction import redact
from ingest import doorbell, inbox
from ingest.exceptions import Setting
from ingest.models import ConflictingDelivery, UnrecognizedDelivery, Verification, Webhook
from ledger.browsing import list_url
from ledger.money import grouped
from monitoring.durations import age_of, duration
from monitoring.figures import Figures, Sign
from worker.counting import DAY
from worker.models import Beat
from worker.trial import posting_fault

LATELY_MINUTES = 5
VERIFIED_WITHIN = timedelta(hours=26)  # once a day, and a little late
STALLED = "stalled"
RUNBOOK = "docs/runbook.md"
OF_SERVERS = {"no broker", "refused", "database settings"}  # causes that no row tells of
_ENTRIES = {  # of the runbook, by cause
    STALLED: "money-is-stuck",
    "drift": "drift",
    "no worker": "no-worker",
    "silent worker": "no-worker",
    "no scheduler": "no-scheduler",
    "silent scheduler": "no-scheduler",
    "posting fails": "posting-fails",
    "failed": "failed-webhooks",
    "conflicts": "conflicts",
    "unrecognized": "unrecognized-deliveries",
    "not verified": "books-not-verified",
    "no broker": "broker-away",
    "no database": "database-away",
    "refused": "deliveries-refused",
    "misconfigured": "deliveries-misconfigured",
    "database settings": "database-settings",
}


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
class Trouble:
    """Something to look at. `cause` is its name as long as it goes on, whatever the text says by then."""

    cause: str
    level: Level
    text: str
    to_do: str
    url: str = ""  # the admin's page about it
    detail: str = ""  # for who may see the rows at `url`
    size: int = 1  # how much of it there is


Rule = Callable[[Figures], Iterator[Trouble]]


def runbook(cause: str) -> str:
    """Where the runbook says what to do about it; its beginning for a cause of another version of ours."""
    return f"{RUNBOOK}#{_ENTRIES[cause]}" if cause in _ENTRIES else RUNBOOK


def of_rows(told: Figures) -> list[Trouble]:
    """What the database's rows tell of. Raises as the database does."""
    rules: list[Rule] = [_misconfigured, _stalled, _posting_fails, _drift, _silent, _failed, _conflicts]
    rules += [_unrecognized, _unverified]
    return [trouble for rule in rules for trouble in rule(told)]


def of_servers() -> list[Trouble]:
    """What the broker and the database server tell of; takes up to half a minute where one hangs."""
    return [*_broker(), *_database_settings(), *_refused()]


def is_stalled(told: Figures) -> bool:
    return told.waiting_seconds is not None and told.waiting_seconds > settings.STALLED_AFTER_SECONDS


def is_verified(told: Figures) -> bool:
    """Lately, with either result, or there was nothing to verify until lately."""
    return told.verified_at is None or told.now - told.verified_at < VERIFIED_WITHIN


def _misconfigured(told: Figures) -> Iterator[Trouble]:
    """WARNING where no proof of origin was seen: a stranger may have called an endpoint that is not used."""
    if found := told.misconfigurations:
        proven = any(one.setting == Setting.ALLOWED_HOSTS for one in found)
        text = _("A setting has deliveries refused with 503: {settings}, the last {age} ago")
        names = ", ".join(f"{one.setting} ({one.detail})" for one in found)
        age = age_of(told.now - max(one.seen_at for one in found))
        yield Trouble(
            "misconfigured",
            Level.BAD if proven else Level.WARNING,
            text.format(settings=names, age=age),
            _("correct the setting and restart web; see that the bank sends again what was refused"),
        )


def _stalled(told: Figures) -> Iterator[Trouble]:
    if is_stalled(told):
        applied = told.last(LATELY_MINUTES)[1]
        text = _(
            "Money is late: {backlog} waiting, the oldest for {wait}; {applied} applied in {minutes} min"
        )
        yield Trouble(
            STALLED,
            Level.WARNING if applied else Level.BAD,
            text.format(
                backlog=told.backlog,
                wait=duration(told.waiting_seconds or 0),
                applied=grouped(applied),
                minutes=LATELY_MINUTES,
            ),
            _("see workers and broker; more workers apply more at once"),
            state_url(Webhook.Status.RECEIVED),
        )


def _posting_fails(told: Figures) -> Iterator[Trouble]:
    """Tried only while a webhook waits for longer than a sweep, so that the page writes nothing otherwise."""
    if told.waiting_seconds is None or told.waiting_seconds < settings.SWEEP_EVERY_SECONDS:
        return
    if fault := posting_fault():
        text = _("No webhook can be applied: {fault}")
        url = state_url(Webhook.Status.RECEIVED)
        yield Trouble("posting fails", Level.BAD, text.format(fault=said_by(fault)), see_to_posting(), url)


def see_to_posting() -> str:
    return _(
        "repair the deployment: manage.py migrate, the grants, or an earlier release; no webhook is lost"
    )


def _drift(told: Figures) -> Iterator[Trouble]:
    if told.verification and told.verification.drift:
        yield Trouble(
            "drift",
            Level.BAD,
            _("The last verification found drift"),
            _("find out who else writes to the database; a backup has the books before"),
            list_url(Verification),
            told.verification.drift,
        )


def _silent(told: Figures) -> Iterator[Trouble]:
    yield from _silent_of(
        told,
        Beat.Kind.WORKER,
        no_longer=_("No worker has been heard of for {age}"),
        not_any=_("No worker is known to run"),
        some=_("Silent worker: {names}"),
        to_start=_("start one: see the worker's line in the Procfile"),
    )
    yield from _silent_of(
        told,
        Beat.Kind.SCHEDULER,
        no_longer=_("No scheduler has been heard of for {age}"),
        not_any=_("No scheduler is known to run"),
        some=_("Silent scheduler: {names}"),
        to_start=_("start one: see the beat line in the Procfile"),
    )


def _silent_of(told: Figures, kind: Beat.Kind, **words: str) -> Iterator[Trouble]:
    ours = [sign for sign in told.signs if sign.beat.kind == kind]
    silent = [sign for sign in ours if sign.is_silent]
    name, url = kind.name.lower(), list_url(Beat)
    if len(silent) == len(ours):
        text = words["not_any"]
        if silent:
            text = words["no_longer"].format(age=age_of(min(sign.age for sign in silent)))
        yield Trouble(f"no {name}", Level.BAD, text, words["to_start"], url)
    elif silent:
        text = words["some"].format(names=", ".join(sign.beat.name for sign in silent))
        yield Trouble(f"silent {name}", Level.WARNING, text, see_to(silent[0]), url)


def see_to(sign: Sign) -> str:
    """What to do about one that is silent; empty if it isn't."""
    return _("see whether it runs, and its log") if sign.is_silent else ""


def _failed(told: Figures) -> Iterator[Trouble]:
    if told.failed:
        text = ngettext(
            "{n} webhook has failed and waits for a person",
            "{n} webhooks have failed and wait for a person",
            told.failed.number,
        )
        yield Trouble(
            "failed",
            Level.WARNING,
            text.format(n=told.failed),
            _("read why in the admin, repair the cause, then manage.py replay --failed"),
            state_url(Webhook.Status.FAILED),
            size=told.failed.number,
        )


def _conflicts(told: Figures) -> Iterator[Trouble]:
    if told.conflicts:
        text = ngettext(
            "{n} delivery contradicts an earlier one, and is not resolved",
            "{n} deliveries contradict an earlier one, and are not resolved",
            told.conflicts.number,
        )
        yield Trouble(
            "conflicts",
            Level.WARNING,
            text.format(n=told.conflicts),
            _("compare the two in the admin, ask the bank, then resolve"),
            conflicts_url(),
            size=told.conflicts.number,
        )


def _unrecognized(told: Figures) -> Iterator[Trouble]:
    if told.unrecognized:
        text = ngettext(
            "{n} delivery of a bank is not recognized: it may be money that is in no balance",
            "{n} deliveries of banks are not recognized: they may be money that is in no balance",
            told.unrecognized.number,
        )
        yield Trouble(
            "unrecognized",
            Level.WARNING,
            text.format(n=told.unrecognized),
            _("read why in the admin; process them again when the adapter knows them, or dismiss them"),
            unrecognized_url(),
            size=told.unrecognized.number,
        )


def _unverified(told: Figures) -> Iterator[Trouble]:
    if told.verified_at and not is_verified(told):
        text = _("The books were not verified for {age}")
        yield Trouble(
            "not verified",
            Level.WARNING,
            text.format(age=age_of(told.now - told.verified_at)),
            _("see the scheduler's log for why; manage.py verify_ledger verifies at once"),
            list_url(Verification),
        )


def _broker() -> Iterator[Trouble]:
    try:
        waiting_messages()
    except Exception:  # noqa: BLE001 each transport has errors of its own
        yield Trouble("no broker", Level.WARNING, _("The broker does not answer"), see_to_broker())


def waiting_messages() -> dict[str, int]:
    """How many messages wait in the broker, by queue. Raises what the transport raises."""
    with current_app.connection_for_write(transport_options=doorbell.BROKER_OPTIONS) as broker:
        return {queue: doorbell.waiting(current_app, broker, queue) for queue in current_app.amqp.queues}


def see_to_broker() -> str:
    return _("see that Redis runs, and that REDIS_URL is right; meanwhile the scheduler alone applies")


def see_to_database() -> str:
    return _("see that the server runs, and that DATABASE_URL is right")


def _database_settings() -> Iterator[Trouble]:
    found = run_checks(databases=["default"], tags=["database"])
    wrong = [one for one in found if one.is_serious() and not one.is_silenced()]
    if wrong:
        text = _("The database server can't be trusted: {what}")
        yield Trouble(
            "database settings",
            Level.BAD,
            text.format(what="; ".join(str(one.msg) for one in wrong)),
            "; ".join(str(one.hint) for one in wrong if one.hint) or "docs/deployment.md",
        )


def _refused() -> Iterator[Trouble]:
    """Rows tell only of what was stored; while nothing can be, everything else may look well."""
    if fault := refused():
        text = _("No webhook can be stored, and the bank is answered 503: {fault}")
        yield Trouble("refused", Level.BAD, text.format(fault=fault), see_to_storage())


def refused() -> str:
    """What the database says to a webhook; empty if it takes one."""
    try:
        inbox.try_out()
    except (DatabaseError, InterfaceError) as fault:
        return said_by(fault)
    return ""


def said_by(fault: Exception) -> str:
    """The database's own words, without the number in front of them."""
    return redact(str(fault.args[-1])) if fault.args else type(fault).__name__


def see_to_storage() -> str:
    return _("see that the database's disk has room, and that nobody has locked the table")


def state_url(status: Webhook.Status) -> str:
    """The list of the webhooks in this state."""
    return list_url(Webhook, status__exact=status.value)


def unrecognized_url() -> str:
    """The list of the unrecognized deliveries that are open."""
    return list_url(UnrecognizedDelivery, state="open")


def conflicts_url() -> str:
    """The list of the open conflicts."""
    return list_url(ConflictingDelivery, resolved_in__isempty="1")


def kept_url(model: Any, told: Figures) -> str:
    """The list of the last day's deliveries of this kind."""
    return list_url(model, received_at__gte=f"{told.now - DAY:%Y-%m-%d %H:%M:%S%z}")
