"""Detect webhooks that look like a payment posted before under another operation id: docs/decisions/0030.

All webhooks of a payer are applied under the lock of its organization. So of two that look alike, in one
batch or in two processes, the later one finds the first.
"""

from collections.abc import Collection
from functools import cache, partial

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import OuterRef, Subquery

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
    if not batch or not (twinned := _with_twins(batch)):
        return []
    alike: dict[int | None, list[Webhook]] = {}
    for webhook in Webhook.objects.filter(id__in_literals=twinned).order_by("id"):
        alike.setdefault(webhook.payment_fingerprint, []).append(webhook)
    applied = _first_applied([webhooks[0].pk for webhooks in alike.values()])
    applied_twins = cache(_applied_twins)  # needed only if accounts differ, or a hash collides
    new = _new(twinned)

    def find_first(webhook: Webhook, earlier: list[Webhook]) -> Webhook | None:
        first = applied.get(webhook.payment_fingerprint)
        if first and look_alike(webhook, first):
            return first
        others = applied_twins(webhook.payment_fingerprint) if first else []
        return next((other for other in [*others, *earlier] if look_alike(webhook, other)), None)

    return [
        SuspectedDuplicate(webhook=webhook, first=first)
        for webhooks in alike.values()
        for position, webhook in enumerate(webhooks)
        if webhook.pk in new and (first := find_first(webhook, webhooks[: min(position, TWINS_COMPARED_MAX)]))
    ]


def _with_twins(batch: set[int]) -> set[int]:
    """Return those whose fingerprint any other webhook has: one lookup in an index for each."""
    # A subquery for each row instead of a join: no optimizer can reverse it and scan the index.
    twins = Webhook.objects.filter(payment_fingerprint=OuterRef("payment_fingerprint"))
    twin = Subquery(twins.exclude(pk=OuterRef("pk")).values("id")[:1])
    twinned = Webhook.objects.filter(id__in_literals=batch).alias(twin=twin).filter(twin__isnull=False)
    return set(twinned.values_list("id", flat=True))


def _new(webhook_ids: set[int]) -> set[int]:
    """Return those without a pair, whose operation the ledger does not have: it can't be held any more."""
    posted = Payment.objects.filter(operation_id=OuterRef("operation_id")).values("id")
    unpaired = Webhook.objects.filter(id__in_literals=webhook_ids, suspected_duplicate=None)
    unpaired = unpaired.exclude(source=STATEMENT_SOURCE)  # the bank's statement shows a payment of its own
    return set(unpaired.alias(posted=Subquery(posted)).filter(posted=None).values_list("id", flat=True))


def _first_applied(representatives: Collection[int]) -> dict[int | None, Webhook]:
    """Return the first applied webhook of each fingerprint that one of the representatives has.

    Once for a fingerprint: of thousands of look-alikes each would read all others.
    """
    twins = Webhook.objects.filter(
        payment_fingerprint=OuterRef("payment_fingerprint"), status=Webhook.Status.APPLIED
    )
    first = Subquery(twins.order_by("id").values("id")[:1])
    keys = Webhook.objects.filter(id__in_literals=representatives).values_list(first, flat=True)
    found = Webhook.objects.filter(id__in_literals={key for key in keys if key})
    return {webhook.payment_fingerprint: webhook for webhook in found}


def _applied_twins(fingerprint: int | None) -> list[Webhook]:
    twins = Webhook.objects.filter(payment_fingerprint=fingerprint, status=Webhook.Status.APPLIED)
    return list(twins.order_by("id")[:TWINS_COMPARED_MAX])
