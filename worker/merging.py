"""Merge webhooks into payments that were posted from a bank statement before the bank notified them.

Runs where webhooks are applied, under the locks of their organizations. Posting from a statement holds the
same locks (statements/line_posting.py), so that of the two the later one finds the other. The endpoint knows
nothing of it: the bank hears 200 as for any webhook.
"""

from collections.abc import Collection
from datetime import date
from functools import partial

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import OuterRef, Q, Subquery

from core.days import shifted
from ingest.models import STATEMENT_SOURCE, StatementWebhook, Webhook
from ingest.number_keys import digits_key
from ledger import corrections
from ledger.inn import UNKNOWN_ACCOUNT
from ledger.models import Payment

log = structlog.get_logger(__name__)

NEAR_DAYS_MAX = 5  # as in the matching: between document date and statement, over the longest holidays


def merge_late(webhook_ids: Collection[int]) -> set[int]:
    """Merge those of a claimed batch whose payment is posted from a statement; return their keys.

    Each payment from a statement merges one. An operation that the ledger has is not merged any more.
    """
    merged = {
        webhook.pk: into
        for webhook in _candidates(webhook_ids)
        if (into := next((key for key in _near(webhook) if _merge(webhook, key)), None))
    }
    if merged:
        webhooks = Webhook.objects.filter(id__in_literals=merged.keys())
        webhooks.update(status=Webhook.Status.MERGED, next_attempt_at=None)
        transaction.on_commit(partial(log.info, "webhooks merged into posted ones", webhooks=merged))
    return set(merged)


def _candidates(webhook_ids: Collection[int]) -> list[Webhook]:
    """Return those with payer and amount of a statement's payment: one lookup in an index for each."""
    # A subquery for each row instead of a join: no optimizer can reverse it and scan the index.
    if not StatementWebhook.objects.filter(merged=None).exists():  # saves the lookups of each batch
        return []
    unmerged = StatementWebhook.objects.filter(merged=None, kopecks=OuterRef("amount_kopecks"))
    of_payer = unmerged.filter(inn=OuterRef("payer_inn")).values("pk")[:1]
    posted = Payment.objects.filter(operation_id=OuterRef("operation_id")).values("pk")
    webhooks = Webhook.objects.filter(id__in_literals=webhook_ids).exclude(source=STATEMENT_SOURCE)
    found = webhooks.alias(expected=Subquery(of_payer)).filter(
        Q(expected__isnull=False) | Q(payer_inn=UNKNOWN_ACCOUNT)
    )
    return list(found.alias(posted=Subquery(posted)).filter(posted=None).defer("body").order_by("id"))


def _near(webhook: Webhook) -> list[int]:
    """Return the statement's webhooks that may be this payment, the nearest first."""
    day = webhook.document_date.astimezone(settings.STATEMENT_TIME_ZONE).date()
    terms = {"kopecks": webhook.amount_kopecks, "digits_key": digits_key(webhook.document_number)}
    payer = Q(inn__startswith="@") if webhook.payer_inn == UNKNOWN_ACCOUNT else Q(inn=webhook.payer_inn)
    unmerged = StatementWebhook.objects.filter(payer, merged=None, **terms)
    days = shifted(day, -NEAR_DAYS_MAX), shifted(day, NEAR_DAYS_MAX)
    near = unmerged.filter(Q(day__range=days) | Q(booked_on__range=days)).values_list(
        "pk", "day", "booked_on"
    )

    def distance(found: tuple[int, date, date]) -> tuple[int, int]:
        key, *of_statement = found
        return min(abs((other - day).days) for other in of_statement), key

    return [key for key, *_ in sorted(near, key=distance)]


def _merge(webhook: Webhook, key: int) -> bool:
    """Record the merge, unless the payment was taken back, or has merged another webhook by now."""
    into = Webhook.objects.defer("body").get(pk=key)
    is_reversed = any(undone for _, _, undone in corrections.states([into.operation_id]))
    if into.status == Webhook.Status.DISMISSED or is_reversed:
        return False
    return StatementWebhook.objects.filter(pk=key, merged=None).update(merged=webhook) == 1
