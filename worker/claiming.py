"""Claim webhooks: lock organizations and their received webhooks, fairly, without waiting for any lock."""

from collections.abc import Collection, Iterator, Sequence
from itertools import chain, groupby, islice
from operator import itemgetter

from ingest.models import Webhook
from ledger.posting import try_lock

# Keys of the locked organizations by INN, and of the locked webhooks.
Claim = tuple[dict[str, int], list[int]]


class ClaimLost(Exception):
    """Other processes applied all the selected webhooks before their organizations were locked."""


class RoundRobin:
    """The position of this process in its cycle over the organizations."""

    last_inn: str | None = None  # of the organization served last


ROUND_ROBIN = RoundRobin()


def claim_round_robin(webhooks_max: int, last_inn: str | None) -> Claim:
    """Lock the next unlocked organizations after `last_inn`, and up to `webhooks_max` of their webhooks.

    An organization gets more than half of the batch only if the others do not fill it. Locked organizations
    are skipped: waiting for one would delay all the others of the batch. Raises ClaimLost.
    """
    half = max(webhooks_max // 2, 1)
    organizations: dict[str, int] = {}
    queued: dict[str, Sequence[int]] = {}  # keys by INN, in the order of the scan
    scan = _scan(webhooks_max, last_inn)
    missing = webhooks_max
    while missing > 0 and (found := _take(scan, missing, half)):
        locked = try_lock(set(found))
        organizations |= locked
        queued |= {inn: keys for inn, keys in found.items() if inn in locked}
        missing = webhooks_max - sum(min(len(keys), half) for keys in queued.values())
    if not queued:
        return {}, []
    # Not rolled back with the transaction: if an organization makes the batch fail, the retry serves others.
    ROUND_ROBIN.last_inn = next(reversed(queued))
    shares = chain((keys[:half] for keys in queued.values()), (keys[half:] for keys in queued.values()))
    webhook_ids = list(islice(chain.from_iterable(shares), webhooks_max))
    return organizations, _lock_webhooks(webhook_ids, in_queue=True)


def _scan(webhooks_max: int, last_inn: str | None) -> Iterator[tuple[str, list[int]]]:
    """Yield the INN of each organization with queued webhooks, and the keys of the oldest of them.

    At most `webhooks_max + 1` keys each. Organizations come in INN order, one full cycle, starting after
    `last_inn`, or in a new process with the organization of the oldest webhook. One query finds many
    organizations with few webhooks each, or one with many; the next query continues after it.
    """
    if last_inn is None:
        oldest = Webhook.objects.queued().values_list("payer_inn", flat=True).first() or ""
        parts = [({"queued_inn__gte": oldest}, {}), ({}, {"queued_inn__lt": oldest})]
    else:
        parts = [({"queued_inn__gt": last_inn}, {}), ({}, {"queued_inn__lte": last_inn})]
    # Order by both columns of the index, so that no server sorts.
    queue = Webhook.objects.order_by("queued_inn", "id").values_list("queued_inn", "id")
    for lower, upper in parts:
        position, is_truncated = lower, True
        while is_truncated:
            rows = queue.filter(**position, **upper)[: webhooks_max + 1]
            found = {inn: [key for _, key in group] for inn, group in groupby(rows, itemgetter(0))}
            is_truncated = sum(map(len, found.values())) > webhooks_max
            if is_truncated and len(found) > 1:
                found.popitem()  # it may have more webhooks; the next query begins with it
            yield from found.items()
            # Replaces the previous lower bound: given two, SQLite uses the first.
            position = {"queued_inn__gt": next(reversed(found), "")}


def _take(scan: Iterator[tuple[str, list[int]]], webhooks_min: int, share_max: int) -> dict[str, list[int]]:
    """Return the next organizations of `scan` with `webhooks_min` in all, counting `share_max` of each."""
    found: dict[str, list[int]] = {}
    for inn, keys in scan:
        found[inn] = keys
        webhooks_min -= min(len(keys), share_max)
        if webhooks_min <= 0:
            break
    return found


def claim_ids(webhook_ids: Collection[int]) -> Claim:
    """Lock those of the webhooks that are received and unlocked, as are their organizations.

    Raises ClaimLost.
    """
    received = Webhook.objects.received().filter(id__in=webhook_ids)
    inns = dict(received.order_by("id").values_list("id", "payer_inn"))
    organizations = try_lock(set(inns.values())) if inns else {}
    lockable = [key for key, inn in inns.items() if inn in organizations]
    return organizations, _lock_webhooks(lockable, in_queue=False)


def _lock_webhooks(webhook_ids: Collection[int], *, in_queue: bool) -> list[int]:
    """Lock the unlocked webhooks; return the keys of those still received, with `in_queue` also still queued.

    They were selected before their organizations were locked. Raises ClaimLost if none is left.
    """
    # By primary key only: through the index on the state the server might read, and lock, other rows.
    unlocked = Webhook.objects.filter(id__in_literals=set(webhook_ids)).select_for_update(skip_locked=True)
    rows = list(unlocked.order_by("id").values_list("id", "status", "next_attempt_at")) if webhook_ids else []
    locked = [
        key
        for key, status, next_attempt_at in rows
        if status == Webhook.Status.RECEIVED and not (in_queue and next_attempt_at)
    ]
    if rows and not locked:
        raise ClaimLost
    return locked
