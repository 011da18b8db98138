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

from ingest.error_kind import with_kind
from ingest.models import Webhook
from ledger.exceptions import OrganizationsMissing
from ledger.posting import Outcome, lock_free, open_organizations, post, posted_before
from worker import transactions
from worker.metrics import APPLIED, BATCH_SECONDS, BATCH_WEBHOOKS, FAILED
from worker.noting import noted

log = structlog.get_logger(__name__)

LOOKS = 5  # for organizations that are locked; a lock that lasts longer is none of our batches'
LOOK_AGAIN_AFTER_SECONDS = 0.1
CONFLICT = "conflict: this operation is posted already, under other terms"
Claimed = tuple[dict[str, int], list[int]]  # the keys of locked organizations by INN, of locked webhooks


class Overtaken(Exception):
    """All webhooks found had been applied by other processes when their organizations were locked."""


class Turn:
    """Whose turn is next in this process: that of the organization behind the last one served."""

    last: str | None = None  # INN


TURN = Turn()


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
    return len(_run(lambda: _apply(partial(_claim_in_turn, webhooks_max, TURN.last))))


def apply_these(webhook_ids: Collection[int]) -> set[int]:
    """Apply these webhooks; return the keys of those that are not received any more by that.

    Left out are those that were not received before, and those that are locked, or whose organization is
    locked, for longer than a few batches take. Raises as apply_batch does.
    """
    applied: set[int] = set()
    for look in range(LOOKS):
        if len(applied) == len(webhook_ids):
            break
        if look:
            time.sleep(LOOK_AGAIN_AFTER_SECONDS)
        applied.update(_run(partial(_apply, partial(_claim_these, set(webhook_ids) - applied))))
    return applied


def _run(apply: Callable[[], list[int]]) -> list[int]:
    begun = time.monotonic()
    webhook_ids = transactions.run(apply)
    if webhook_ids:
        BATCH_WEBHOOKS.observe(len(webhook_ids))
        BATCH_SECONDS.observe(time.monotonic() - begun)
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
        log.info("batch is tried again, asking what is posted already", error=repr(exc.__cause__))
    return _apply_once(claim, warily=True)


def _apply_once(claim: Callable[[], Claimed], *, warily: bool = False) -> list[int]:
    while True:
        webhook_ids: list[int] = []
        try:
            with transaction.atomic():
                organizations, webhook_ids = claim()
                if webhook_ids:
                    with noted(webhook_ids):
                        _mark_and_post(webhook_ids, organizations, warily=warily)
        except OrganizationsMissing as exc:
            open_organizations(exc.inns)
        except Overtaken:
            # While this process held the organizations, others may have passed over what came for them.
            continue
        except Exception as exc:
            if transactions.is_transient(exc) or not webhook_ids:
                raise
            raise BatchFailed(webhook_ids) from exc
        else:
            return webhook_ids


def _mark_and_post(webhook_ids: Collection[int], organizations: Mapping[str, int], *, warily: bool) -> None:
    _mark_applied(webhook_ids)
    told = Webhook.objects.filter(id__among=set(webhook_ids)).telling_terms()
    conflicts: list[UUID] = []
    if warily:
        before = posted_before(told)
        conflicts = [operation_id for operation_id, outcome in before.items() if outcome is Outcome.CONFLICT]
        _fail(conflicts)
        told = told.exclude(operation_id__in=before)
    post(told, organizations)
    transaction.on_commit(partial(APPLIED.inc, len(webhook_ids) - len(conflicts)))


def _claim_in_turn(webhooks_max: int, last: str | None) -> Claimed:
    """Lock organizations that are not locked, in turn behind `last`, and a batch of their queued webhooks.

    An organization gets more than half of the batch only if the others don't fill it. Nothing here waits:
    waiting for one organization would delay all the others of the batch.
    """
    half = max(webhooks_max // 2, 1)
    organizations: dict[str, int] = {}
    queued: dict[str, Sequence[int]] = {}  # of these, in turn
    walk = _walk(webhooks_max, last)
    lacking = webhooks_max
    while lacking > 0 and (found := _first_of(walk, lacking, half)):
        free = lock_free(set(found))
        organizations |= free
        queued |= {inn: keys for inn, keys in found.items() if inn in free}
        lacking = webhooks_max - sum(min(len(keys), half) for keys in queued.values())
    if not queued:
        return {}, []
    # Also if this is rolled back: where an organization makes it fail, the next try serves others.
    TURN.last = next(reversed(queued))
    shares = chain((keys[:half] for keys in queued.values()), (keys[half:] for keys in queued.values()))
    return organizations, _lock(list(islice(chain.from_iterable(shares), webhooks_max)), in_queue=True)


def _walk(webhooks_max: int, last: str | None) -> Iterator[tuple[str, list[int]]]:
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


def _first_of(walk: Iterator[tuple[str, list[int]]], webhooks_min: int, half: int) -> dict[str, list[int]]:
    """The next organizations of `walk`, until at most `half` a batch of each makes `webhooks_min`."""
    found: dict[str, list[int]] = {}
    for inn, keys in walk:
        found[inn] = keys
        webhooks_min -= min(len(keys), half)
        if webhooks_min <= 0:
            break
    return found


def _claim_these(webhook_ids: Collection[int]) -> Claimed:
    """Lock those of the webhooks that are received, if neither they nor their organizations are locked."""
    these = Webhook.objects.received().filter(id__in=webhook_ids)
    seen = dict(these.order_by("id").values_list("id", "payer_inn"))
    organizations = lock_free(set(seen.values())) if seen else {}
    return organizations, _lock([key for key, inn in seen.items() if inn in organizations], in_queue=False)


def _lock(webhook_ids: Collection[int], *, in_queue: bool) -> list[int]:
    """Lock the webhooks that are not locked; return the keys of those still received, and still in the queue.

    They were found before their organizations were locked. Raises Overtaken if nothing is left of them.
    """
    # By primary key only: by the index of the states the server might read, and lock, other rows on its way.
    free = Webhook.objects.filter(id__among=set(webhook_ids)).select_for_update(skip_locked=True)
    rows = list(free.order_by("id").values_list("id", "status", "next_attempt_at")) if webhook_ids else []
    locked = [
        key
        for key, status, next_attempt_at in rows
        if status == Webhook.Status.RECEIVED and not (in_queue and next_attempt_at)
    ]
    if rows and not locked:
        raise Overtaken
    return locked


def _mark_applied(webhook_ids: Collection[int]) -> None:
    """The webhooks are received, and locked."""
    Webhook.objects.filter(id__among=set(webhook_ids)).update(
        status=Webhook.Status.APPLIED, applied_at=timezone.now(), next_attempt_at=None, **with_kind("")
    )


def _fail(conflicts: Collection[UUID]) -> None:
    if conflicts:
        webhooks = Webhook.objects.filter(operation_id__in=conflicts)
        webhooks.update(status=Webhook.Status.FAILED, applied_at=None, **with_kind(CONFLICT))
        operation_ids = sorted(map(str, conflicts))
        transaction.on_commit(partial(FAILED.labels("conflict").inc, len(conflicts)))
        transaction.on_commit(
            lambda: log.error("operations conflict with posted payments", operation_ids=operation_ids)
        )
