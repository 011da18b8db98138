"""Apply webhooks: claim them, mark them applied and post their payments in one transaction.

A suspected duplicate may be held instead (worker/duplicate_detection.py), and a webhook that comes after its
payment was posted from a bank statement is merged (worker/merging.py).
"""

import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from uuid import UUID

import structlog
from django.db import IntegrityError, reset_queries, transaction
from django.utils import timezone

from core.db import transactions
from ingest.error_fingerprint import error_fields
from ingest.models import Webhook
from ledger.exceptions import MissingOrganizations
from ledger.posting import PriorPosting, create_organizations, find_posted, post
from worker import claiming, duplicate_detection, merging
from worker.batch_markers import batch_marker
from worker.claiming import Claim, ClaimLost
from worker.metrics import APPLIED, BATCH_DURATION, BATCH_SIZE, FAILED

log = structlog.get_logger(__name__)

LOCK_TRIES = 5  # for locked organizations; no batch of ours holds a lock for longer
LOCK_RETRY_SECONDS = 0.1
CONFLICT = "conflict: this operation is posted already, under other terms"


class BatchFailed(Exception):
    """A batch cannot be applied because of at least one of its webhooks."""

    def __init__(self, webhook_ids: list[int]) -> None:
        super().__init__(f"{len(webhook_ids)} webhooks could not be applied together")
        self.webhook_ids = webhook_ids


def apply_batch(webhooks_max: int) -> int:
    """Apply up to `webhooks_max` queued webhooks of unlocked organizations; return the count.

    Workers skip locked organizations, so a lock holder must call this again after its commit until it returns
    0: then every organization it could lock has no queued webhooks left but locked ones.
    Raises BatchFailed, and django.db errors that stayed transient through every try.
    """
    return len(
        _run(lambda: _apply(partial(claiming.claim_round_robin, webhooks_max, claiming.ROUND_ROBIN.last_inn)))
    )


def apply_ids(webhook_ids: Collection[int]) -> set[int]:
    """Apply these webhooks; return the keys of those that it applied, held, merged, or failed as conflicts.

    Skip webhooks that are not received, and those that stay locked, or whose organization stays locked, for
    longer than a few batches take. Raises as apply_batch does.
    """
    applied: set[int] = set()
    for attempt in range(LOCK_TRIES):
        if len(applied) == len(webhook_ids):
            break
        if attempt:
            time.sleep(LOCK_RETRY_SECONDS)
        applied.update(_run(partial(_apply, partial(claiming.claim_ids, set(webhook_ids) - applied))))
    return applied


def _run(apply: Callable[[], list[int]]) -> list[int]:
    started = time.monotonic()
    webhook_ids = transactions.run_with_retries(apply)
    if webhook_ids:  # on commit: a trial posting is rolled back (worker/trial_posting.py)
        transaction.on_commit(partial(BATCH_SIZE.observe, len(webhook_ids)))
        transaction.on_commit(partial(BATCH_DURATION.observe, time.monotonic() - started))
    return webhook_ids


def _apply(claim: Callable[[], Claim]) -> list[int]:
    """Apply what `claim` claims; return the keys of the webhooks that are no longer received.

    The first try assumes that none of the operations is posted yet. If the ledger's unique key proves that
    wrong, the second try first queries which ones are.
    """
    reset_queries()  # with DEBUG on, Django would keep every statement of this process in memory
    try:
        return _apply_once(claim)
    except BatchFailed as exc:
        if not isinstance(exc.__cause__, IntegrityError):
            raise
        log.info("batch retried after checking which operations are posted", error=repr(exc.__cause__))
    return _apply_once(claim, check_posted=True)


def _apply_once(claim: Callable[[], Claim], *, check_posted: bool = False) -> list[int]:
    while True:
        webhook_ids: list[int] = []
        try:
            with transaction.atomic():
                organizations, webhook_ids = claim()
                if webhook_ids:
                    with batch_marker(webhook_ids):
                        _mark_and_post(webhook_ids, organizations, check_posted=check_posted)
        except MissingOrganizations as exc:
            create_organizations(exc.inns)
        except ClaimLost:
            # While this process had the organizations locked, others may have skipped their new webhooks.
            continue
        except Exception as exc:
            if transactions.is_transient(exc) or not webhook_ids:
                raise
            raise BatchFailed(webhook_ids) from exc
        else:
            return webhook_ids


def _mark_and_post(
    webhook_ids: Collection[int], organizations: Mapping[str, int], *, check_posted: bool
) -> None:
    new = set(webhook_ids) - merging.merge_late(webhook_ids)
    posting = new - duplicate_detection.pair_suspects(new)
    if not posting:
        return
    _mark_applied(posting)
    payments = Webhook.objects.filter(id__in_literals=posting).with_payment_terms()
    conflicts: list[UUID] = []
    if check_posted:
        posted = find_posted(payments)
        conflicts = [operation_id for operation_id, prior in posted.items() if prior is PriorPosting.CONFLICT]
        _fail(conflicts)
        payments = payments.exclude(operation_id__in=posted)
    post(payments, organizations)
    transaction.on_commit(partial(APPLIED.inc, len(posting) - len(conflicts)))


def _mark_applied(webhook_ids: set[int]) -> None:
    Webhook.objects.filter(id__in_literals=webhook_ids).update(
        status=Webhook.Status.APPLIED, applied_at=timezone.now(), next_attempt_at=None, **error_fields("")
    )


def _fail(conflicts: Collection[UUID]) -> None:
    if conflicts:
        webhooks = Webhook.objects.filter(operation_id__in=conflicts)
        webhooks.update(status=Webhook.Status.FAILED, applied_at=None, **error_fields(CONFLICT))
        operation_ids = sorted(map(str, conflicts))
        transaction.on_commit(partial(FAILED.labels("conflict").inc, len(conflicts)))
        transaction.on_commit(
            lambda: log.error("operations conflict with posted payments", operation_ids=operation_ids)
        )
