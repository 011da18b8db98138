"""What is let go of with time: raw bodies, kept deliveries, results of tasks, sessions. The ledger never.

Rows go in small batches, each in a transaction of its own: the door and the workers wait for none of them,
and a run that is cut off has done what it has done.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from django.conf import settings
from django.contrib.sessions.models import Session
from django.db.models import QuerySet
from django_celery_results.models import TaskResult

from ingest.models import KeptDelivery, Webhook
from ledger.bisection import key_at
from worker import clock, transactions

BATCH_ROWS = 1000
ENDED = [Webhook.Status.APPLIED, Webhook.Status.DISMISSED]

Keys = list[Any]


@dataclass(frozen=True)
class Kind:
    """One kind of thing that is kept for some time."""

    name: str
    kept: str  # for how long, in words
    batches: Callable[[], Iterator[Keys]]  # of what is older
    let_go: Callable[[Keys], object]


def kinds(*, thorough: bool) -> list[Kind]:
    """Everything that doesn't stay for ever.

    Bodies are looked for from the newest that is old enough, back to where there are none any more;
    `thorough` looks on from there, for those of webhooks that ended late.
    """
    days = settings.BODIES_KEPT_DAYS
    bodies = Kind("raw bodies of webhooks", _for(days), partial(_bodies, days, thorough), _empty)
    kept = [model.deletable() for model in KeptDelivery.__subclasses__()]
    return [
        bodies,
        *(_rows(rows, "received_at", settings.KEPT_DELIVERIES_DAYS) for rows in kept),
        _rows(TaskResult.objects.all(), "date_done", settings.RESULTS_KEPT_DAYS),
        Kind("sessions", "expired", _expired_sessions, lambda keys: _sessions(keys).delete()),
    ]


def prune(watch: Callable[[Kind, int], object], *, thorough: bool, seconds_max: float = float("inf")) -> None:
    """Let go of everything old, for so long at most; `watch` is told of each batch that is gone."""
    until = time.monotonic() + seconds_max
    for kind in kinds(thorough=thorough):
        for keys in kind.batches():
            transactions.run(partial(kind.let_go, keys))
            watch(kind, len(keys))
            if time.monotonic() > until:
                return


def count() -> dict[str, int]:
    """How many of each kind a thorough prune would let go of."""
    return {kind.name: sum(map(len, kind.batches())) for kind in kinds(thorough=True)}


def _rows(rows: QuerySet[Any], field: str, days: int) -> Kind:
    def batches() -> Iterator[Keys]:
        behind, last = _key_of_age(rows, field, days), 0
        while keys := _keys(rows.filter(pk__gt=last, pk__lt=behind).order_by("pk")[:BATCH_ROWS]):
            yield keys
            last = keys[-1]

    name = str(rows.model._meta.verbose_name_plural)
    return Kind(name, _for(days), batches, lambda keys: rows.filter(pk__in=keys).delete())


def _for(days: int) -> str:
    return f"older than {days} days" if days else "kept for ever"


def _expired_sessions() -> Iterator[Keys]:
    """By clearsessions' rule. Django leaves them to somebody else, and each login of the admin makes one."""
    last = ""
    while keys := _keys(
        Session.objects.filter(expire_date__lt=clock.now(), pk__gt=last).order_by("pk")[:BATCH_ROWS]
    ):
        yield keys
        last = keys[-1]


def _sessions(keys: Keys) -> QuerySet[Session]:
    # By their end once more: whoever comes back meanwhile keeps his.
    return Session.objects.filter(pk__in=keys, expire_date__lt=clock.now())


def _bodies(days: int, thorough: bool) -> Iterator[Keys]:  # noqa: FBT001 called by partial
    webhooks = Webhook.objects.all()
    behind = _key_of_age(webhooks, "received_at", days)
    while looked_at := _keys(webhooks.filter(pk__lt=behind).order_by("-pk")[:BATCH_ROWS]):
        ended = webhooks.filter(pk__gte=looked_at[-1], pk__lt=behind, status__in=ENDED)
        if keys := _keys(ended.exclude(body=b"")):
            yield keys
        elif not thorough:
            return
        behind = looked_at[-1]


def _empty(keys: Keys) -> None:
    # By state once more: it may have changed since they were looked at.
    Webhook.objects.filter(pk__in=keys, status__in=ENDED).update(body=b"")


def _keys(rows: QuerySet[Any]) -> Keys:
    return list(rows.values_list("pk", flat=True))


def _key_of_age(rows: QuerySet[Any], field: str, days: int) -> int:
    """The first key that is younger than so many days; with 0 days all are."""
    return key_at(rows, field, clock.now() - timedelta(days=days)) if days else 0
