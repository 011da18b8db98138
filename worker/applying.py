"""Received webhooks become posted payments: claim, mark and post in one transaction."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, groupby, islice
from operator import itemgetter
from uuid import UUID

import structlog
from django.db import IntegrityError, reset_queries, transaction
from django.utils import timezone

from core.db import transactions
from ingest.error_fingerprint import error_fields
from ingest.models import Webhook
from ledger.exceptions import MissingOrganizations
from ledger.posting import PriorPosting, create_organizations, find_posted, post, try_lock
from worker.batch_markers import batch_marker
from worker.metrics import APPLIED, BATCH_DURATION, BATCH_SIZE, FAILED

log = structlog.get_logger(__name__)

LOCK_TRIES = 5  # for organizations that are locked; a lock that lasts longer is none of our batches'
LOCK_RETRY_SECONDS = 0.1
CONFLICT = "conflict: this operation is posted already, under other terms"
Claimed = tuple[dict[str, int], list[int]]  # the keys of locked organizations by INN, of locked webhooks


class ClaimLost(Exception):
    """All webhooks found had been applied by other processes when their organizations were locked."""


class RoundRobin:
    """Whose turn is next in this process: that of the organization behind the last one served."""

    last: str | None = None  # INN


ROUND_ROBIN = RoundRobin()


class BatchFailed(Exception):
    """A batch could not be applied, for a reason that lies in at least one of its webhooks."""

    def __init__(self, webhook_ids: list[int]) -> None:
        super().__init__(f"{len(webhook_ids)} webhooks could not be applied together")
        self.webhook_ids = webhook_ids


def apply_batch(webhooks_max: int) -> int:
    """Apply queued webhooks of organizations that are not locked, at most `webhooks_max`; return how many.

    A locked organization is passed over; so the process that had it locked has to call this again
    afterwards, until it returns 0: then it has locked none, or only such whose queued webhooks are locked.
    Raises BatchFailed, and django.db errors that stayed transient through every try.
    """
    return len(_run(lambda: _apply(partial(claim_round_robin, webhooks_max, ROUND_ROBIN.last))))


def apply_ids(webhook_ids: Collection[int]) -> set[int]:
    """Apply these webhooks; return the keys of those that are not received any more by that.

    Left out are those that were not received before, and those that are locked, or whose organization is
    locked, for longer than a few batches take. Raises as apply_batch does.
    """
    applied: set[int] = set()
    for look in range(LOCK_TRIES):
        if len(applied) == len(webhook_ids):
            break
        if look:
            time.sleep(LOCK_RETRY_SECONDS)
        applied.update(_run(partial(_apply, partial(claim_ids, set(webhook_ids) - applied))))
    return applied


def _run(apply: Callable[[], list[int]]) -> list[int]:
    begun = time.monotonic()
    webhook_ids = transactions.run_with_retries(apply)
    if webhook_ids:  # on commit: a trial is rolled back (worker/trial_posting.py)
        transaction.on_commit(partial(BATCH_SIZE.observe, len(webhook_ids)))
        transaction.on_commit(partial(BATCH_DURATION.observe, time.monotonic() - begun))
    return webhook_ids


def _apply(claim: Callable[[], Claimed]) -> list[int]:
    """Apply what `claim` claims; return the keys of the webhooks that are not received any more by this.

    The first try trusts that none of the operations is posted already. The ledger's unique key refuses when
    that is wrong; the second try asks first.
    """
    reset_queries()  # with DEBUG on, Django would keep every statement of this process in memory
    try:
        return _apply_once(claim)
    except BatchFailed as exc:
        if not isinstance(exc.__cause__, IntegrityError):
            raise
        log.info("batch retried after checking which operations are posted", error=repr(exc.__cause__))
    return _apply_once(claim, check_posted=True)


def _apply_once(claim: Callable[[], Claimed], *, check_posted: bool = False) -> list[int]:
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
            # While this process held the organizations, others may have passed over what came for them.
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
    _mark_applied(webhook_ids)
    told = Webhook.objects.filter(id__in_literals=set(webhook_ids)).with_payment_terms()
    conflicts: list[UUID] = []
    if check_posted:
        before = find_posted(told)
        conflicts = [
            operation_id for operation_id, outcome in before.items() if outcome is PriorPosting.CONFLICT
        ]
        _fail(conflicts)
        told = told.exclude(operation_id__in=before)
    post(told, organizations)
    transaction.on_commit(partial(APPLIED.inc, len(webhook_ids) - len(conflicts)))


def claim_round_robin(webhooks_max: int, last: str | None) -> Claimed:
    """Lock organizations that are not locked, in turn behind `last`, and a batch of their queued webhooks.

    An organization gets more than half of the batch only if the others don't fill it. Nothing here waits:
    waiting for one organization would delay all the others of the batch.
    """
    half = max(webhooks_max // 2, 1)
    organizations: dict[str, int] = {}
    queued: dict[str, Sequence[int]] = {}  # of these, in turn
    walk = _scan(webhooks_max, last)
    lacking = webhooks_max
    while lacking > 0 and (found := _take(walk, lacking, half)):
        free = try_lock(set(found))
        organizations |= free
        queued |= {inn: keys for inn, keys in found.items() if inn in free}
        lacking = webhooks_max - sum(min(len(keys), half) for keys in queued.values())
    if not queued:
        return {}, []
    # Also if this is rolled back: where an organization makes it fail, the next try serves others.
    ROUND_ROBIN.last = next(reversed(queued))
    shares = chain((keys[:half] for keys in queued.values()), (keys[half:] for keys in queued.values()))
    return organizations, _lock(list(islice(chain.from_iterable(shares), webhooks_max)), in_queue=True)


def _scan(webhooks_max: int, last: str | None) -> Iterator[tuple[str, list[int]]]:
    """Yield the INN of each organization that has queued webhooks, and the keys of the oldest of these, up to
    `webhooks_max` and one more. In the order of INNs, once around, beginning behind `last` or, in a new
    process, with the organization of the oldest webhook.

    One query finds many organizations with few webhooks each, or one with many; the next begins behind it.
    """
    if last is None:
        oldest = Webhook.objects.queued().values_list("payer_inn", flat=True).first() or ""
        parts = [({"queued_inn__gte": oldest}, {}), ({}, {"queued_inn__lt": oldest})]
    else:
        parts = [({"queued_inn__gt": last}, {}), ({}, {"queued_inn__lte": last})]
    # Both columns of the index, so that no server sorts.
    queue = Webhook.objects.order_by("queued_inn", "id").values_list("queued_inn", "id")
    for behind, before in parts:
        position, is_cut = behind, True
        while is_cut:
            rows = queue.filter(**position, **before)[: webhooks_max + 1]
            found = {inn: [key for _, key in its] for inn, its in groupby(rows, itemgetter(0))}
            is_cut = sum(map(len, found.values())) > webhooks_max
            if is_cut and len(found) > 1:
                found.popitem()  # it may have more; the next query begins with it
            yield from found.items()
            # In the place of the bound before: of two lower ones SQLite takes the first.
            position = {"queued_inn__gt": next(reversed(found), "")}


def _take(walk: Iterator[tuple[str, list[int]]], webhooks_min: int, half: int) -> dict[str, list[int]]:
    """The next organizations of `walk`, until at most `half` a batch of each makes `webhooks_min`."""
    found: dict[str, list[int]] = {}
    for inn, keys in walk:
        found[inn] = keys
        webhooks_min -= min(len(keys), half)
        if webhooks_min <= 0:
            break
    return found


def claim_ids(webhook_ids: Collection[int]) -> Claimed:
    """Lock those of the webhooks that are received, if neither they nor their organizations are locked."""
    these = Webhook.objects.received().filter(id__in=webhook_ids)
    seen = dict(these.order_by("id").values_list("id", "payer_inn"))
    organizations = try_lock(set(seen.values())) if seen else {}
    return organizations, _lock([key for key, inn in seen.items() if inn in organizations], in_queue=False)


def _lock(webhook_ids: Collection[int], *, in_queue: bool) -> list[int]:
    """Lock the webhooks that are not locked; return the keys of those still received, and still in the queue.

    They were found before their organizations were locked. Raises Overtaken if nothing is left of them.
    """
    # By primary key only: by the index of the states the server might read, and lock, other rows on its way.
    free = Webhook.objects.filter(id__in_literals=set(webhook_ids)).select_for_update(skip_locked=True)
    rows = list(free.order_by("id").values_list("id", "status", "next_attempt_at")) if webhook_ids else []
    locked = [
        key
        for key, status, next_attempt_at in rows
        if status == Webhook.Status.RECEIVED and not (in_queue and next_attempt_at)
    ]
    if rows and not locked:
        raise ClaimLost
    return locked


def _mark_applied(webhook_ids: Collection[int]) -> None:
    """The webhooks are received, and locked."""
    Webhook.objects.filter(id__in_literals=set(webhook_ids)).update(
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
