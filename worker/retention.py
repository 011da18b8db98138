"""What is deleted with time: raw bodies, kept deliveries, results of tasks, sessions. The ledger never.

Each row goes by its own age, so that no row of a bad clock decides about others. Rows go in small batches,
each in a transaction of its own: the endpoint and the workers wait for none of them, and a run that is cut
off has done what it has done.
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
from ledger.bisection import SAMPLE_ROWS
from worker import clock, transactions
from worker.models import Checkpoint

BATCH_ROWS = 1000
ENDED = [Webhook.Status.APPLIED, Webhook.Status.DISMISSED]
BODIES = "empty raw bodies"  # the name of its checkpoint

Keys = list[Any]


@dataclass(frozen=True)
class Kind:
    """One kind of thing that is kept for some time."""

    name: str
    kept: str  # for how long, in words
    batches: Callable[[], Iterator[Keys]]  # of what is older; a batch may be empty
    let_go: Callable[[Keys], object]


def kinds(*, thorough: bool) -> list[Kind]:
    """Everything that doesn't stay for ever.

    Bodies are emptied from the oldest on, and each run goes on where the one before was cut off. `thorough`
    looks at each webhook, for those that ended late and those of a clock that was ahead.
    """
    days = settings.BODIES_KEPT_DAYS
    bodies = Kind("raw bodies of webhooks", _for(days), partial(_bodies, days, thorough), _empty)
    kept = [model.deletable() for model in KeptDelivery.__subclasses__()]
    return [
        bodies,
        *(_rows(rows, "received_at", settings.KEPT_DELIVERIES_DAYS) for rows in kept),
        _rows(TaskResult.objects.all(), "date_done", settings.RESULTS_KEPT_DAYS),
        # By clearsessions' rule. Django leaves that to its user, and each login to the admin makes one.
        _kind(Session.objects.all(), "expired", lambda: {"expire_date__lt": clock.now()}),
    ]


def prune(watch: Callable[[Kind, int], object], *, thorough: bool, seconds_max: float = float("inf")) -> None:
    """Delete everything old, for so long at most; `watch` is called with each batch that is gone.

    Each kind has its share of the time, so that a long backlog of one doesn't hold up the others.
    """
    them = kinds(thorough=thorough)
    for kind in them:
        until, is_over = time.monotonic() + seconds_max / len(them), False
        for keys in kind.batches():
            if is_over:  # only now, so that the batch before is noted as done
                break
            if keys:
                transactions.run(partial(kind.let_go, keys))
                watch(kind, len(keys))
            is_over = time.monotonic() > until


def count() -> dict[str, int]:
    """How many of each kind a thorough prune would delete."""
    return {kind.name: sum(map(len, kind.batches())) for kind in kinds(thorough=True)}


def _rows(rows: QuerySet[Any], field: str, days: int) -> Kind:
    return (
        _kind(rows, _for(days), lambda: _older(field, days)) if days else _kind(rows.none(), _for(days), dict)
    )


def _for(days: int) -> str:
    return f"older than {days} days" if days else "kept for ever"


def _older(field: str, days: int) -> dict[str, Any]:
    return {f"{field}__lt": clock.now() - timedelta(days=days)}


def _kind(rows: QuerySet[Any], kept: str, due: Callable[[], dict[str, Any]]) -> Kind:
    """Rows that are deleted when they are `due`, a condition that is asked again at the deletion."""

    def batches() -> Iterator[Keys]:
        old = rows.filter(**due()).order_by("pk")
        keys = _keys(old[:BATCH_ROWS])
        while keys:
            yield keys
            keys = _keys(old.filter(pk__gt=keys[-1])[:BATCH_ROWS])

    name = str(rows.model._meta.verbose_name_plural)
    return Kind(name, kept, batches, lambda keys: rows.filter(pk__in=keys, **due()).delete())


def _bodies(days: int, thorough: bool) -> Iterator[Keys]:  # noqa: FBT001 called by partial
    """By pages of webhooks along the primary key, up to where they are younger; or of all."""
    if not days:
        return
    done = Checkpoint(task=BODIES, key=0)
    if not thorough:
        done = Checkpoint.objects.filter(task=BODIES).first() or done
    webhooks = Webhook.objects.order_by("pk")
    older = _older("received_at", days)
    while page := _keys(webhooks.filter(pk__gt=done.key)[:BATCH_ROWS]):
        old = webhooks.filter(pk__gte=page[0], pk__lte=page[-1], **older)
        yield _keys(old.filter(status__in=ENDED).exclude(body=b""))
        rows_done = len(page) if thorough else _rows_before_younger(page, set(_keys(old)))
        if not rows_done:
            return
        done.key = page[rows_done - 1]
        if not thorough:
            done.save()


def _rows_before_younger(page: Keys, old: set[Any]) -> int:
    """How many rows of the page come before the first that is to be looked at again, because it is younger.

    One that is followed by more old rows than younger ones comes from a clock that was ahead: passed over.
    """
    for position, key in enumerate(page):
        if key not in old:
            behind = page[position + 1 :]
            if len(behind) < SAMPLE_ROWS or 2 * len(old.intersection(behind)) <= len(behind):
                return position
    return len(page)


def _empty(keys: Keys) -> None:
    # By state once more: it may have changed since they were looked at.
    Webhook.objects.filter(pk__in=keys, status__in=ENDED).update(body=b"")


def _keys(rows: QuerySet[Any]) -> Keys:
    return list(rows.values_list("pk", flat=True))
