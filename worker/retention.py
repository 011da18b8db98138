"""Delete expired data: raw bodies, delivery records, task results and sessions. The ledger is never deleted.

Each row expires by its own age, so a row with a wrong timestamp does not affect others. Rows are deleted in
small batches, each in its own transaction, so the endpoint and the workers do not wait, and an interrupted
run keeps its progress.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any

from django.conf import settings
from django.contrib.sessions.models import Session
from django.db.models import QuerySet
from django_celery_results.models import TaskResult

from core.db import clock, transactions
from core.db.pk_by_time import SAMPLE_ROWS
from ingest.models import DeliveryRecord, OperationVersion, Webhook
from worker.models import Checkpoint

BATCH_ROWS = 250  # a batch of 1000 had SQLite locked longer than anything else
FINAL_STATUSES = [Webhook.Status.APPLIED, Webhook.Status.DISMISSED, Webhook.Status.MERGED]
BODIES_CHECKPOINT = "empty raw bodies"

Keys = list[Any]
Condition = Callable[[], dict[str, Any]]  # of a filter; evaluated when it is used


@dataclass(frozen=True)
class RetentionRule:
    """How long one kind of data is kept, and how it is deleted."""

    name: str
    retention_text: str
    batches: Callable[[], Iterator[Keys]]  # primary keys of expired rows; a batch may be empty
    delete: Callable[[Keys], object]


Progress = Callable[[RetentionRule, int], object]
_registered: list[Callable[[], RetentionRule]] = []  # of packages above


def register(rule: Callable[[], RetentionRule]) -> None:
    """Add the rule of a package above, made anew for each run."""
    _registered.append(rule)


def rules(*, full_scan: bool) -> list[RetentionRule]:
    """Return a rule for each kind of data that expires.

    Bodies are emptied from the oldest on, each run continuing from the checkpoint of the one before.
    `full_scan` checks every webhook, including those applied or dismissed late and those with a timestamp in
    the future.
    """
    days = settings.RAW_BODY_RETENTION_DAYS
    batches = partial(_expired_bodies, days, full_scan)
    bodies = RetentionRule("raw bodies of webhooks", _retention_text(days), batches, _empty_bodies)
    records = [model.deletable() for model in DeliveryRecord.__subclasses__()]
    return [
        bodies,
        emptied_bodies("raw bodies of operation versions", _versions(), "received_at", days),
        *(_rows_by_age(rows, "received_at", settings.DELIVERY_RETENTION_DAYS) for rows in records),
        _rows_by_age(TaskResult.objects.all(), "date_done", settings.TASK_RESULT_RETENTION_DAYS),
        # The rule of Django's clearsessions, which Django leaves to its user to run.
        _expired_rows(Session.objects.all(), "expired", lambda: {"expire_date__lt": clock.database_now()}),
        *(rule() for rule in _registered),
    ]


def prune(on_progress: Progress, *, full_scan: bool, seconds_max: float = float("inf")) -> None:
    """Delete expired rows for up to `seconds_max`; call `on_progress` with the rows of each deleted batch.

    Each rule gets an equal share of the time, so that a long backlog of one does not delay the others.
    """
    all_rules = rules(full_scan=full_scan)
    for rule in all_rules:
        until, is_over = time.monotonic() + seconds_max / len(all_rules), False
        for keys in rule.batches():
            if is_over:  # only now, so that the checkpoint includes the batch before
                break
            if keys:
                transactions.run_with_retries(partial(rule.delete, keys))
                on_progress(rule, len(keys))
            is_over = time.monotonic() > until


def count_expired() -> dict[str, int]:
    """Return how many rows of each rule a prune with a full scan would delete."""
    return {rule.name: sum(map(len, rule.batches())) for rule in rules(full_scan=True)}


def _rows_by_age(rows: QuerySet[Any], field: str, days: int) -> RetentionRule:
    """Return a rule that deletes rows when `field` is older than `days`; 0 keeps them forever."""
    text = _retention_text(days)
    if not days:
        return _expired_rows(rows.none(), text, dict)
    return _expired_rows(rows, text, lambda: _older(field, days))


def emptied_bodies(name: str, rows: QuerySet[Any], field: str, days: int) -> RetentionRule:
    """Return a rule that empties `body` of those of `rows` whose `field` is older than `days`."""
    filled = rows.exclude(body=b"")
    rule = _rows_by_age(filled, field, days)
    return replace(rule, name=name, delete=lambda keys: filled.filter(pk__in=keys).update(body=b""))


def _versions() -> QuerySet[OperationVersion]:
    return OperationVersion.objects.exclude(outcome=OperationVersion.Outcome.DUE)


def _retention_text(days: int) -> str:
    return f"older than {days} days" if days else "kept forever"


def _older(field: str, days: int) -> dict[str, Any]:
    return {f"{field}__lt": clock.database_now() - timedelta(days=days)}


def _expired_rows(rows: QuerySet[Any], retention_text: str, condition: Condition) -> RetentionRule:
    """Return a rule that deletes the rows that meet `condition`, which is checked again at the deletion."""

    def batches() -> Iterator[Keys]:
        expired = rows.filter(**condition()).order_by("pk")
        keys = _keys(expired[:BATCH_ROWS])
        while keys:
            yield keys
            keys = _keys(expired.filter(pk__gt=keys[-1])[:BATCH_ROWS])

    def delete(keys: Keys) -> object:
        return rows.filter(pk__in=keys, **condition()).delete()

    return RetentionRule(str(rows.model._meta.verbose_name_plural), retention_text, batches, delete)


def _expired_bodies(days: int, full_scan: bool) -> Iterator[Keys]:  # noqa: FBT001 called by partial
    """Yield keys of webhooks with an expired body, a page of webhooks by primary key at a time.

    Stop at the first page of younger webhooks; a full scan visits all pages.
    """
    if not days:
        return
    checkpoint = Checkpoint(task=BODIES_CHECKPOINT, key=0)
    if not full_scan:
        checkpoint = Checkpoint.objects.filter(task=BODIES_CHECKPOINT).first() or checkpoint
    webhooks = Webhook.objects.order_by("pk")
    older = _older("received_at", days)
    while page := _keys(webhooks.filter(pk__gt=checkpoint.key)[:BATCH_ROWS]):
        old = webhooks.filter(pk__gte=page[0], pk__lte=page[-1], **older)
        yield _keys(old.filter(status__in=FINAL_STATUSES).exclude(body=b""))
        rows_done = len(page) if full_scan else _rows_before_younger(page, set(_keys(old)))
        if not rows_done:
            return
        checkpoint.key = page[rows_done - 1]
        if not full_scan:
            checkpoint.save()


def _rows_before_younger(page: Keys, old: set[Any]) -> int:
    """Return how many rows of the page precede the first younger one, where the next run has to resume.

    A younger row that is followed mostly by old ones has a timestamp from a fast clock, and is skipped.
    """
    for position, key in enumerate(page):
        if key not in old:
            following = page[position + 1 :]
            if len(following) < SAMPLE_ROWS or 2 * len(old.intersection(following)) <= len(following):
                return position
    return len(page)


def _empty_bodies(keys: Keys) -> None:
    # Filter by status again: it may have changed since the keys were read.
    Webhook.objects.filter(pk__in=keys, status__in=FINAL_STATUSES).update(body=b"")


def _keys(rows: QuerySet[Any]) -> Keys:
    return list(rows.values_list("pk", flat=True))
