"""Received webhooks become posted payments: claim, mark and post in one transaction."""

import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from typing import Any
from uuid import UUID

import structlog
from django.db import IntegrityError, OperationalError, reset_queries, transaction
from django.db.models import QuerySet
from django.db.models.functions import Lower
from django.utils import timezone

from ingest.error_kind import with_kind
from ingest.models import Webhook, WebhookQuerySet
from ledger.exceptions import OrganizationsMissing
from ledger.posting import Outcome, lock_free, open_organizations, post, posted_before
from worker import transactions
from worker.metrics import APPLIED, BATCH_SECONDS, BATCH_WEBHOOKS, FAILED

log = structlog.get_logger(__name__)

LOOKED_AT_MAX = 2_000  # of the oldest; where all are held, workers do so for nothing before each batch
LOOK_FURTHER_TIMES = 4
NEWEST_LOOKED_AT = 200  # more than arrive while one batch is applied
HOT_SHARE = 0.1  # of the oldest webhooks; who has more is hot
LOOKED_THROUGH_MAX = 20_000  # keys behind hot organizations; 0.2 µs each
LOOKS = 5  # for organizations that are held; whoever holds one for longer isn't one of our batches
LOOK_AGAIN_AFTER_SECONDS = 0.1
Seen = tuple[int, str]  # a webhook's key and INN, as they were before any lock
CONFLICT = "conflict: this operation is posted already, under other terms"


class Overtaken(Exception):
    """Somebody has, or had, a webhook that we were about to mark."""


class Lookout:
    """How far behind hot organizations this process has looked for others, so that it looks through each
    part of a backlog once."""

    looked_to = 0  # a webhook's key


LOOKOUT = Lookout()


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
    return len(_run(Webhook.objects.queued(), webhooks_max))


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
        applied.update(_run(these, len(webhook_ids)))
        if len(applied) == len(webhook_ids):
            break
    return applied


def _run(claimable: WebhookQuerySet, webhooks_max: int) -> list[int]:
    begun = time.monotonic()
    webhook_ids = transactions.run(partial(_apply, claimable, webhooks_max))
    if webhook_ids:
        BATCH_WEBHOOKS.observe(len(webhook_ids))
        BATCH_SECONDS.observe(time.monotonic() - begun)
    return webhook_ids


def _apply(claimable: WebhookQuerySet, webhooks_max: int) -> list[int]:
    """The keys of the webhooks that are not received any more by this.

    The first try trusts that nobody else touches the webhooks of organizations that we hold, and that none
    of these operations is posted already. A count or a unique key tells when that was wrong; then it looks
    first.
    """
    reset_queries()  # with DEBUG on, Django would keep every statement of this process in memory
    try:
        return _apply_once(claimable, webhooks_max)
    except BatchFailed as failed:
        if not isinstance(failed.__cause__, Overtaken | IntegrityError):
            raise
        log.info("batch is tried again, looking first", error=repr(failed.__cause__))
    return _apply_once(claimable, webhooks_max, warily=True)


def _apply_once(claimable: WebhookQuerySet, webhooks_max: int, *, warily: bool = False) -> list[int]:
    while True:
        webhook_ids: list[int] = []
        try:
            with transaction.atomic():
                organizations, webhook_ids = _claim(claimable, webhooks_max)
                if warily:
                    webhook_ids = _lock(webhook_ids)
                if webhook_ids:
                    _mark_and_post(webhook_ids, organizations, warily=warily)
        except OrganizationsMissing as missing:
            open_organizations(missing.inns)
        except Exception as fault:
            if transactions.is_transient(fault) or not webhook_ids:
                raise
            raise BatchFailed(webhook_ids) from fault
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


def _claim(claimable: WebhookQuerySet, webhooks_max: int) -> tuple[dict[str, int], list[int]]:
    """Lock organizations that nobody holds, and by that claim their webhooks; the keys of both.

    Nothing here waits: whoever waited for one organization would have all the others of the batch wait.
    """
    for _ in range(2):
        organizations, seen = _lock_organizations(claimable, webhooks_max)
        claimed = list(claimable.filter(id__among=set(seen)).values_list("pk", flat=True))
        # Whoever held them before us may have applied all that we saw, and may have been passed over with
        # what came since. So look once more, under our locks.
        if claimed or not seen:
            break
    return organizations, claimed


def _lock_organizations(claimable: WebhookQuerySet, webhooks_max: int) -> tuple[dict[str, int], list[int]]:
    """The organizations of a batch, by INN, and the keys of its webhooks as they were before the locks.

    It looks further where others hold what it has found; and where it has found many organizations with few
    webhooks each: of fewer with more of them the batch costs less, and others find some that are free.
    """
    rows = claimable.values_list("pk", "payer_inn")
    held: set[str] = set()
    reach = webhooks_max
    oldest, newest = _look(rows, reach)
    hidden = _look_behind_hot(oldest, newest, max(webhooks_max // 4, 1))
    while True:
        free = [(key, inn) for key, inn in chain(hidden, oldest, newest) if inn not in held]
        batch = _share(free, webhooks_max)
        inns = {inn for _, inn in batch}
        scattered = reach == webhooks_max and len(inns) > webhooks_max // LOOK_FURTHER_TIMES
        if (scattered or len(batch) < webhooks_max) and len(oldest) == reach and reach < LOOKED_AT_MAX:
            reach = min(LOOK_FURTHER_TIMES * reach, LOOKED_AT_MAX)
            oldest += rows.filter(pk__gt=oldest[-1][0])[: reach - len(oldest)]
            continue
        organizations = lock_free(inns)
        if inns == organizations.keys():
            return organizations, [key for key, _ in batch]
        held |= inns - organizations.keys()


def _look(rows: QuerySet[Any, Seen], reach: int) -> tuple[list[Seen], list[Seen]]:
    """The oldest `reach` webhooks and, behind a longer queue, some of the newest: one organization's backlog
    may be all that can be seen from the old end.
    """
    oldest = list(rows[:reach])
    if len(oldest) < reach:
        return oldest, []
    return oldest, [*reversed(rows.filter(pk__gt=oldest[-1][0]).order_by("-pk")[:NEWEST_LOOKED_AT])]


def _look_behind_hot(oldest: Sequence[Seen], newest: Sequence[Seen], webhooks_max: int) -> list[Seen]:
    """Webhooks that stand between these, of organizations that aren't hot; at most
    `webhooks_max`, and only from where this process hasn't looked yet.
    """
    if not newest:
        LOOKOUT.looked_to = 0
        return []
    counts = Counter(inn for _, inn in oldest)
    hot = [inn for inn, count in counts.items() if count > HOT_SHARE * len(oldest)]
    after, newest_key = max(oldest[-1][0], LOOKOUT.looked_to), newest[-1][0]
    if not hot or after >= newest_key:
        return []
    to = min(after + LOOKED_THROUGH_MAX, newest_key)
    # Along the keys: by the index of the states it would look up each row's INN, for ten times as long.
    stretch = _received_by_key().filter(next_attempt_at=None, pk__gt=after, pk__lte=to)
    others = stretch.exclude(payer_inn__in=hot).order_by("pk").values_list("pk", "payer_inn")
    found = list(others[:webhooks_max])
    # Not if it's rolled back: the next try has to find them again.
    looked_to = found[-1][0] if len(found) == webhooks_max else to
    transaction.on_commit(partial(setattr, LOOKOUT, "looked_to", looked_to))
    return found


def _share(seen: Iterable[Seen], webhooks_max: int) -> list[Seen]:
    """A batch of those seen: organization by organization, in the order in which they were seen; none of
    them gets more than half of it as long as others are there for the rest.
    """
    by_inn: dict[str, list[Seen]] = defaultdict(list)
    for key, inn in dict(seen).items():  # some may have been seen twice
        by_inn[inn].append((key, inn))
    half = max(webhooks_max // 2, 1)
    first = chain.from_iterable(webhooks[:half] for webhooks in by_inn.values())
    rest = chain.from_iterable(webhooks[half:] for webhooks in by_inn.values())
    return list(islice(chain(first, rest), webhooks_max))


def _mark_applied(webhook_ids: Collection[int]) -> None:
    """Mark before posting: the UPDATE is what takes the locks, one statement less than to lock and then mark.

    Nobody applies webhooks of an organization that we hold, but an attempt may be counted or given up.
    Raises Overtaken.
    """
    # By the state's index the server would wait for rows that others mark.
    received = _received_by_key().filter(id__among=set(webhook_ids))
    try:
        marked = received.update(
            status=Webhook.Status.APPLIED, applied_at=timezone.now(), next_attempt_at=None, **with_kind("")
        )
    except OperationalError as fault:
        if fault.args[0] == transactions.LOCK_WAIT_TIMEOUT:
            raise Overtaken from fault
        raise
    if marked != len(webhook_ids):
        raise Overtaken


def _received_by_key() -> WebhookQuerySet:
    """Received webhooks, to be found by their keys: a state in a function leads no server to its index."""
    return Webhook.objects.alias(state=Lower("status")).filter(state=Webhook.Status.RECEIVED)


def _lock(webhook_ids: Collection[int]) -> list[int]:
    """Those of the webhooks that nobody else has locked, and that are still received."""
    free = Webhook.objects.filter(id__among=webhook_ids).select_for_update(skip_locked=True).order_by("id")
    return [key for key, status in free.values_list("pk", "status") if status == Webhook.Status.RECEIVED]


def _fail(conflicts: Collection[UUID]) -> None:
    if conflicts:
        webhooks = Webhook.objects.filter(operation_id__in=conflicts)
        webhooks.update(status=Webhook.Status.FAILED, applied_at=None, **with_kind(CONFLICT))
        operation_ids = sorted(map(str, conflicts))
        transaction.on_commit(partial(FAILED.labels("conflict").inc, len(conflicts)))
        transaction.on_commit(
            lambda: log.error("operations conflict with posted payments", operation_ids=operation_ids)
        )
