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

from core.db import clock, transactions
from core.db.pk_by_time import SAMPLE_ROWS
from ingest.models import DeliveryRecord, Webhook
from worker.models import Checkpoint

BATCH_ROWS = 1000
FINAL_STATUSES = [Webhook.Status.APPLIED, Webhook.Status.DISMISSED]
BODIES_CHECKPOINT = "empty raw bodies"  # the name of its checkpoint

Keys = list[Any]


@dataclass(frozen=True)
class RetentionRule:
    """One kind of thing that is kept for some time."""

    name: str
    kept: str  # for how long, in words
    batches: Callable[[], Iterator[Keys]]  # of what is older; a batch may be empty
    delete: Callable[[Keys], object]


def rules(*, full_scan: bool) -> list[RetentionRule]:
    """Everything that doesn't stay for ever.

    Bodies are emptied from the oldest on, and each run goes on where the one before was cut off. `thorough`
    looks at each webhook, for those that ended late and those of a clock that was ahead.
    """
    days = settings.RAW_BODY_RETENTION_DAYS
    bodies = RetentionRule(
        "raw bodies of webhooks",
        _retention_text(days),
        partial(_expired_bodies, days, full_scan),
        _empty_bodies,
    )
    kept = [model.deletable() for model in DeliveryRecord.__subclasses__()]
    return [
        bodies,
        *(_rows_by_age(rows, "received_at", settings.DELIVERY_RETENTION_DAYS) for rows in kept),
        _rows_by_age(TaskResult.objects.all(), "date_done", settings.TASK_RESULT_RETENTION_DAYS),
        # By clearsessions' rule. Django leaves that to its user, and each login to the admin makes one.
        _expired_rows(Session.objects.all(), "expired", lambda: {"expire_date__lt": clock.database_now()}),
    ]


def prune(
    watch: Callable[[RetentionRule, int], object], *, full_scan: bool, seconds_max: float = float("inf")
) -> None:
    """Delete everything old, for so long at most; `watch` is called with each batch that is gone.

    Each kind has its share of the time, so that a long backlog of one doesn't hold up the others.
    """
    them = rules(full_scan=full_scan)
    for kind in them:
        until, is_over = time.monotonic() + seconds_max / len(them), False
        for keys in kind.batches():
            if is_over:  # only now, so that the batch before is noted as done
                break
            if keys:
                transactions.run_with_retries(partial(kind.delete, keys))
                watch(kind, len(keys))
            is_over = time.monotonic() > until


def count_expired() -> dict[str, int]:
    """How many of each kind a thorough prune would delete."""
    return {kind.name: sum(map(len, kind.batches())) for kind in rules(full_scan=True)}


def _rows_by_age(rows: QuerySet[Any], field: str, days: int) -> RetentionRule:
    return (
        _expired_rows(rows, _retention_text(days), lambda: _older(field, days))
        if days
        else _expired_rows(rows.none(), _retention_text(days), dict)
    )


def _retention_text(days: int) -> str:
    return f"older than {days} days" if days else "kept for ever"


def _older(field: str, days: int) -> dict[str, Any]:
    return {f"{field}__lt": clock.database_now() - timedelta(days=days)}


def _expired_rows(rows: QuerySet[Any], kept: str, due: Callable[[], dict[str, Any]]) -> RetentionRule:
    """Rows that are deleted when they are `due`, a condition that is asked again at the deletion."""

    def batches() -> Iterator[Keys]:
        old = rows.filter(**due()).order_by("pk")
        keys = _keys(old[:BATCH_ROWS])
        while keys:
            yield keys
            keys = _keys(old.filter(pk__gt=keys[-1])[:BATCH_ROWS])

    name = str(rows.model._meta.verbose_name_plural)
    return RetentionRule(name, kept, batches, lambda keys: rows.filter(pk__in=keys, **due()).delete())


def _expired_bodies(days: int, full_scan: bool) -> Iterator[Keys]:  # noqa: FBT001 called by partial
    """By pages of webhooks along the primary key, up to where they are younger; or of all."""
    if not days:
        return
    done = Checkpoint(task=BODIES_CHECKPOINT, key=0)
    if not full_scan:
        done = Checkpoint.objects.filter(task=BODIES_CHECKPOINT).first() or done
    webhooks = Webhook.objects.order_by("pk")
    older = _older("received_at", days)
    while page := _keys(webhooks.filter(pk__gt=done.key)[:BATCH_ROWS]):
        old = webhooks.filter(pk__gte=page[0], pk__lte=page[-1], **older)
        yield _keys(old.filter(status__in=FINAL_STATUSES).exclude(body=b""))
        rows_done = len(page) if full_scan else _rows_before_younger(page, set(_keys(old)))
        if not rows_done:
            return
        done.key = page[rows_done - 1]
        if not full_scan:
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


def _empty_bodies(keys: Keys) -> None:
    # By state once more: it may have changed since they were looked at.
    Webhook.objects.filter(pk__in=keys, status__in=FINAL_STATUSES).update(body=b"")


def _keys(rows: QuerySet[Any]) -> Keys:
    return list(rows.values_list("pk", flat=True))
