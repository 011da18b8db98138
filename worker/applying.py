"""Received webhooks become posted payments: claim, post and mark in one transaction."""

from collections.abc import Sequence

import structlog
from django.db import reset_queries, transaction
from django.utils import timezone

from ingest import doorbell
from ingest.models import Webhook, WebhookQuerySet
from ledger.exceptions import OrganizationsMissing
from ledger.posting import Outcome, open_organizations, post
from worker import transactions

log = structlog.get_logger(__name__)

CONFLICT = "conflict: this operation is posted already, under other terms"


class BatchFailed(Exception):
    """A batch could not be applied, for a reason that lies in at least one of its webhooks."""

    def __init__(self, webhook_ids: list[int]) -> None:
        super().__init__(f"{len(webhook_ids)} webhooks could not be applied together")
        self.webhook_ids = webhook_ids


def apply_batch(webhooks_max: int) -> int:
    """Apply the oldest queued webhooks nobody else has claimed, at most `webhooks_max`; returns how many.

    Raises BatchFailed, and django.db errors that stayed transient through every try.
    """
    queued = Webhook.objects.queued()[:webhooks_max]
    return len(transactions.run(lambda: _apply(queued, ring_when=webhooks_max)))


def apply_one(webhook_id: int) -> bool:
    """Apply this webhook; False if it isn't received any more, or claimed by somebody else at this moment.

    A webhook in conflict with a posted payment is failed then, not applied.
    """
    one = Webhook.objects.received().filter(id=webhook_id)
    return len(transactions.run(lambda: _apply(one))) == 1


def _apply(claimable: WebhookQuerySet, ring_when: int | None = None) -> list[Webhook]:
    """One try. A batch of `ring_when` webhooks rings before it is posted, so that others join in."""
    reset_queries()  # with DEBUG on, Django would keep every statement of this process in memory
    while True:
        webhooks: list[Webhook] = []
        try:
            with transaction.atomic():
                webhooks = list(claimable.select_for_update(skip_locked=True).defer("body"))
                if len(webhooks) == ring_when:
                    doorbell.ring()
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
