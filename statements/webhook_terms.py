"""Keep MatchKey up to date with the inbox and the ledger.

The request path never writes that table: storing a webhook costs the same with and without reconciliation.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from django.conf import settings
from django.db.models import F, Max, OuterRef, QuerySet, Subquery

from core.db.insert_rows import Value, insert_rows
from ingest.models import Webhook
from ingest.number_keys import digits_key, number_key
from ledger.models import Payment, Replacement
from statements import day_totals
from statements.models import Bucket, Match, MatchKey, StatementLine

ROWS_AT_ONCE = 1000
# A webhook may be committed after others with larger keys, within milliseconds.
LATE_COMMITS_MAX = 20_000

_COLUMNS = (
    *("webhook_id", "payment_id", "notified_inn", "inn", "kopecks"),
    *("number_key", "digits_key", "day", "state", "bucket"),
)
OPEN = [Webhook.Status.RECEIVED, Webhook.Status.FAILED, Webhook.Status.HELD]
_PAYMENT = Subquery(
    Payment.objects.filter(operation_id=OuterRef("operation_id"), kind=Payment.Kind.PAYMENT).values("pk")
)


def add_new() -> int:
    """Add the webhooks that are not in MatchKey yet; return how many. Concurrent calls add each once."""
    last = MatchKey.objects.aggregate(key=Max("pk"))["key"] or 0
    added = 0
    for rows in _pages(Webhook.objects.filter(match_key__isnull=True), last - LATE_COMMITS_MAX):
        insert_rows(MatchKey, _COLUMNS, map(_key, rows), ignore_conflicts=True)
        added += len(rows)
    return added


def _pages(webhooks: QuerySet[Webhook], after: int) -> Iterator[list[tuple[Any, ...]]]:
    columns = ("pk", "payer_inn", "amount_kopecks", "document_number", "document_date", "status")
    ordered = webhooks.order_by("pk").annotate(payment=_PAYMENT).values_list(*columns, "payment")
    while rows := list(ordered.filter(pk__gt=after)[:ROWS_AT_ONCE]):
        yield rows
        after = rows[-1][0]


def _key(row: tuple[Any, ...]) -> Sequence[Value]:
    pk, inn, kopecks, number, at, status, payment_id = row
    payment = payment_id if status == Webhook.Status.APPLIED else None
    day = at.astimezone(settings.STATEMENT_TIME_ZONE).date().isoformat()
    keys = number_key(number), digits_key(number)
    return pk, payment, inn, inn, kopecks, *keys, day, _state(status).value, Bucket.UNDECIDED.value


def _state(status: str) -> MatchKey.State:
    if status == Webhook.Status.APPLIED:
        return MatchKey.State.POSTED
    return MatchKey.State.UNPOSTED if status in OPEN else MatchKey.State.NONE


def update_changed() -> None:
    """Follow what happened since: webhooks applied or dismissed, payments reversed or replaced.

    The caller holds the locks of all own accounts, in a transaction.
    """
    _update(_applied_or_closed())
    while replaced := list(_replaced()):
        _update(replaced)
    _update(_reversed())


def _applied_or_closed() -> Iterator[MatchKey]:
    unposted = MatchKey.objects.filter(state=MatchKey.State.UNPOSTED).exclude(webhook__status__in=OPEN)
    operation = Payment.objects.filter(operation_id=OuterRef("webhook__operation_id"), kind="payment")
    rows = unposted.annotate(status=F("webhook__status"), payment=Subquery(operation.values("pk")))
    for key in rows:
        key.state = _state(key.status)
        key.payment_id = key.payment if key.state == MatchKey.State.POSTED else None
        yield key


def _replaced() -> Iterator[MatchKey]:
    replacements = Replacement.objects.filter(replaced_id__in=MatchKey.objects.values("payment_id"))
    columns = ("replaced_id", "payment_id", "payment__organization__inn", "payment__amount_kopecks")
    by_replaced = {replaced: terms for replaced, *terms in replacements.values_list(*columns)}
    for key in _by_payment(list(by_replaced)):
        if key.payment_id is not None:
            key.payment_id, key.inn, key.kopecks = by_replaced[key.payment_id]
            key.state = MatchKey.State.POSTED
            yield key


def _reversed() -> Iterator[MatchKey]:
    reversals = Payment.objects.filter(reverses__isnull=False, reverses__replaced_by__isnull=True)
    posted = MatchKey.objects.filter(state=MatchKey.State.POSTED)
    for key in posted.filter(payment_id__in=reversals.values("reverses_id")):
        key.state = MatchKey.State.NONE
        yield key


def _by_payment(payment_ids: list[int]) -> Iterator[MatchKey]:
    for start in range(0, len(payment_ids), ROWS_AT_ONCE):
        yield from MatchKey.objects.filter(payment_id__in=payment_ids[start : start + ROWS_AT_ONCE])


def _update(changed: "Iterator[MatchKey] | list[MatchKey]") -> None:
    """Store the changed keys, and take back their matches, to be decided again.

    An operator's match stays while the payment stands with the line's amount.
    """
    keys = list(changed)
    for key in keys:
        key.bucket = Bucket.UNDECIDED
    fields = ["payment_id", "inn", "kopecks", "state", "bucket"]
    for start in range(0, len(keys), ROWS_AT_ONCE):
        part = keys[start : start + ROWS_AT_ONCE]
        MatchKey.objects.bulk_update(part, fields)
        matches = Match.objects.filter(live=True, webhook__in=[key.pk for key in part])
        lines = list(matches.values_list("line_id", flat=True))
        day_totals.undecide(StatementLine.objects.filter(pk__in=lines))
        matches.filter(rank__in=Match.AUTOMATIC).delete()
        gone = matches.filter(webhook__match_key__state=MatchKey.State.NONE)
        other = matches.exclude(line__kopecks=F("webhook__match_key__kopecks"))
        for undone in (gone, other):
            Match.objects.filter(pk__in=list(undone.values_list("pk", flat=True))).update(live=None)
