"""Received webhooks become posted payments: claim, post and mark in one transaction."""

import time
from collections.abc import Collection, Sequence
from functools import partial

import structlog
from django.db import reset_queries, transaction
from django.utils import timezone

from ingest.models import Webhook, WebhookQuerySet
from ledger.exceptions import OrganizationsMissing
from ledger.posting import Outcome, lock_free, open_organizations, post
from worker import transactions

log = structlog.get_logger(__name__)

LOOKED_AT_MAX = 10_000  # webhooks behind those of held organizations; more would take long to look through
LOOKS = 5  # for organizations that are held; whoever holds one for longer isn't one of our batches
LOOK_AGAIN_AFTER_SECONDS = 0.1
CONFLICT = "conflict: this operation is posted already, under other terms"


class BatchFailed(Exception):
    """A batch could not be applied, for a reason that lies in at least one of its webhooks."""

    def __init__(self, webhook_ids: list[int]) -> None:
        super().__init__(f"{len(webhook_ids)} webhooks could not be applied together")
        self.webhook_ids = webhook_ids


def apply_batch(webhooks_max: int) -> int:
    """Apply the oldest queued webhooks of organizations that nobody holds, at most `webhooks_max`; how many.

    Whoever finds an organization held passes on; so whoever held one has to look again afterwards.
    Raises BatchFailed, and django.db errors that stayed transient through every try.
    """
    return len(transactions.run(partial(_apply, Webhook.objects.queued(), webhooks_max)))


def apply_these(webhook_ids: Collection[int]) -> set[int]:
    """Apply these webhooks; the keys of those that are not received any more by that.

    Left out are those that were not received before, and those that somebody else holds, or holds the
    organization of, for longer than a few batches take. Raises as apply_batch does.
    """
    applied: set[int] = set()
    for look in range(LOOKS):
        if look:
            time.sleep(LOOK_AGAIN_AFTER_SECONDS)
        these = Webhook.objects.received().filter(id__in=set(webhook_ids) - applied).order_by("id")
        applied |= {webhook.pk for webhook in transactions.run(partial(_apply, these, len(webhook_ids)))}
        if len(applied) == len(webhook_ids):
            break
    return applied


def _apply(claimable: WebhookQuerySet, webhooks_max: int) -> list[Webhook]:
    reset_queries()  # with DEBUG on, Django would keep every statement of this process in memory
    while True:
        webhooks: list[Webhook] = []
        try:
            with transaction.atomic():
                webhooks = _claim(claimable, webhooks_max)
                if webhooks:
                    _mark(webhooks, post([webhook.terms for webhook in webhooks]))
        except OrganizationsMissing as missing:
            open_organizations(missing.inns)
        except Exception as fault:
            if transactions.is_transient(fault) or not webhooks:
                raise
            raise BatchFailed([webhook.pk for webhook in webhooks]) from fault
        else:
            return webhooks


def _claim(claimable: WebhookQuerySet, webhooks_max: int) -> list[Webhook]:
    """Lock webhooks, and before them their organizations. Nothing here waits: whoever waited for one
    organization would have all the others of the batch wait.
    """
    for _ in range(2):
        keys = _of_free_organizations(claimable, webhooks_max)
        webhooks = claimable.filter(id__in=keys).select_for_update(skip_locked=True).defer("body")
        # Somebody may have applied them all between the look and the lock, and passed on what came to
        # these organizations since because we held them. So look a second time, under our locks.
        claimed = list(webhooks)
        if claimed or not keys:
            return claimed
    return []


def _of_free_organizations(claimable: WebhookQuerySet, webhooks_max: int) -> list[int]:
    """Keys of the oldest webhooks whose organizations could be locked; behind those of others it looks on."""
    held: set[str] = set()
    reach = webhooks_max
    while True:
        seen = claimable.values_list("pk", "payer_inn")[:reach]
        oldest = [(key, inn) for key, inn in seen if inn not in held][:webhooks_max]
        inns = {inn for _, inn in oldest}
        found_held = inns - lock_free(inns)
        held |= found_held
        if not found_held or reach >= LOOKED_AT_MAX:
            return [key for key, inn in oldest if inn not in held]
        reach = min(4 * reach, LOOKED_AT_MAX)


def _mark(webhooks: Sequence[Webhook], outcomes: Sequence[Outcome]) -> None:
    conflicts = [w.pk for w, outcome in zip(webhooks, outcomes, strict=True) if outcome is Outcome.CONFLICT]
    applied = [w.pk for w, outcome in zip(webhooks, outcomes, strict=True) if outcome is not Outcome.CONFLICT]
    now = timezone.now()
    if applied:
        _move(applied, status=Webhook.Status.APPLIED, applied_at=now, next_attempt_at=None, last_error="")
    if conflicts:
        _move(conflicts, status=Webhook.Status.FAILED, next_attempt_at=None, last_error=CONFLICT)
        transaction.on_commit(
            lambda: log.error("operations conflict with posted payments", webhook_ids=conflicts)
        )


def _move(webhook_ids: Sequence[int], **values: object) -> None:
    # By primary key alone: we hold their locks since they were received. With the status named as well,
    # the server may go by its index instead, and wait for rows that other workers have claimed.
    Webhook.objects.filter(id__in=webhook_ids).update(**values)
