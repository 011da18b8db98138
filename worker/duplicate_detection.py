"""Detect webhooks that look like a payment posted before under another operation id: docs/decisions/0030.

All webhooks of a payer are applied under the lock of its organization. So of two that look alike, in one
batch or in two processes, the later one finds the first.
"""

from collections.abc import Collection
from functools import partial
from itertools import chain
from typing import Any

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce

from ingest.models import STATEMENT_SOURCE, SuspectedDuplicate, Webhook
from ingest.suspected_duplicates import look_alike
from ledger.models import Payment

log = structlog.get_logger(__name__)

TWINS_COMPARED_MAX = 20  # of one webhook, applied ones and those of the batch each
OPERATIONS_LOGGED_MAX = 10


def pair_suspects(webhook_ids: Collection[int]) -> set[int]:
    """Pair those of a claimed batch that look like an earlier webhook; return the keys of those to hold.

    The organizations are locked. A webhook is paired once: after an operator has cleared it, it is posted.
    """
    if settings.SUSPECTED_DUPLICATES == "off":
        return set()
    pairs = _find_pairs(set(webhook_ids))
    if not pairs:
        return set()
    SuspectedDuplicate.objects.bulk_create(pairs)
    held = {pair.webhook_id for pair in pairs} if settings.SUSPECTED_DUPLICATES == "hold" else set()
    if held:
        webhooks = Webhook.objects.filter(id__in_literals=held)
        webhooks.update(status=Webhook.Status.HELD, next_attempt_at=None)
    operation_ids = [str(pair.webhook.operation_id) for pair in pairs[:OPERATIONS_LOGGED_MAX]]
    transaction.on_commit(
        partial(
            log.warning,
            "suspected duplicates",
            webhooks=len(pairs),
            held=bool(held),
            operation_ids=operation_ids,
        )
    )
    return held


def _find_pairs(batch: set[int]) -> list[SuspectedDuplicate]:
    """Return a pair for each webhook that has an earlier look-alike and no pair yet; none is saved."""
    if not batch or not (candidates := _with_twins(batch)):
        return []
    # An operation that the ledger has is not new, and can't be held any more.
    posted = Payment.objects.filter(operation_id=OuterRef("operation_id")).values("id")
    applied, in_batch = _earlier_twins(OuterRef("payment_fingerprint"), OuterRef("pk"), batch)
    twin = Coalesce(Subquery(applied.values("id")[:1]), Subquery(in_batch.values("id")[:1]))
    new = Webhook.objects.filter(id__in_literals=candidates, suspected_duplicate=None)
    new = new.exclude(source=STATEMENT_SOURCE)  # the bank's statement shows it as a payment of its own
    twinned = new.annotate(twin=twin, posted=Subquery(posted)).filter(twin__isnull=False, posted=None)
    firsts = dict(twinned.order_by("id").values_list("id", "twin"))
    rows = Webhook.objects.in_bulk({*firsts, *firsts.values()})
    found = [(rows[key], _first(rows[key], rows[first], batch)) for key, first in firsts.items()]
    return [SuspectedDuplicate(webhook=webhook, first=first) for webhook, first in found if first]


def _with_twins(batch: set[int]) -> set[int]:
    """Return those whose fingerprint any other webhook has: one lookup in an index for each."""
    # A subquery for each row instead of a join: no optimizer can reverse it and scan the index.
    twins = Webhook.objects.filter(payment_fingerprint=OuterRef("payment_fingerprint"))
    twin = Subquery(twins.exclude(pk=OuterRef("pk")).values("id")[:1])
    twinned = Webhook.objects.filter(id__in_literals=batch).alias(twin=twin).filter(twin__isnull=False)
    return set(twinned.values_list("id", flat=True))


def _earlier_twins(
    fingerprint: Any, key: Any, batch: set[int]
) -> tuple[QuerySet[Webhook], QuerySet[Webhook]]:
    """Return the applied webhooks of this fingerprint, and those that precede `key` in the batch."""
    twins = Webhook.objects.filter(payment_fingerprint=fingerprint).exclude(pk=key).order_by("id")
    return twins.filter(status=Webhook.Status.APPLIED), twins.filter(id__in_literals=batch, id__lt=key)


def _first(webhook: Webhook, twin: Webhook, batch: set[int]) -> Webhook | None:
    """Return the first look-alike: the first twin, unless its accounts differ or its hash collides."""
    if look_alike(webhook, twin):
        return twin
    groups = _earlier_twins(webhook.payment_fingerprint, webhook.pk, batch)
    twins = chain.from_iterable(group[:TWINS_COMPARED_MAX] for group in groups)
    return next((other for other in twins if look_alike(webhook, other)), None)
