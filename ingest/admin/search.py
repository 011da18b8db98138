"""Search among millions of webhooks without an index that every INSERT would pay for.

An operation id, ours or the bank's, finds any webhook. Failed, dismissed and held ones are a small set by the
index of the status, so any of their fields can be searched. Applied ones are found through the ledger's own
indexes: an organization's latest payments.
"""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Q, QuerySet

from core.db.pk_by_time import SAMPLE_ROWS, first_pk_at
from ingest.banks import tbank, tochka
from ingest.exceptions import InvalidDelivery
from ingest.models import OperationAlias, Webhook
from ingest.signatures import unverified_payload
from ledger.inn import is_inn
from ledger.models import Payment
from ledger.operation_id import parse_operation_id

APPLIED_MAX = 200  # webhooks of the organization
NOT_APPLIED_MAX = 10_000
CLOCK_SKEW_MAX = timedelta(minutes=5)  # between web processes
FAILED_OR_DISMISSED = [Webhook.Status.FAILED, Webhook.Status.DISMISSED]
_FEW = [*FAILED_OR_DISMISSED, Webhook.Status.HELD]  # webhooks are in these states
_SPACE = re.compile(r"\s+")
_RUBLES = re.compile(r"([0-9]{1,14})(?:[.,]([0-9]{2}))?")


def search(rows: QuerySet[Webhook], text: str) -> QuerySet[Webhook]:
    """Return those of `rows` with this operation id, INN, document number or amount in rubles."""
    by_id = list(rows.filter(operation_id__in=matching_operation_ids(text)).values_list("pk", flat=True))
    if by_id or parse_operation_id(text):
        return rows.filter(pk__in=by_id)
    condition = Q(payer_inn=text) | Q(document_number=text)
    if (kopecks := parse_kopecks(text)) is not None:
        condition |= Q(amount_kopecks=kopecks)
    if not is_inn(text):
        return rows.filter(condition, status__in=_FEW)
    # Keys first: for one condition OR the other no server would use two indexes.
    not_applied = Webhook.objects.filter(condition, status__in=_FEW)
    keys = not_applied.values_list("id", flat=True)[:NOT_APPLIED_MAX]
    return rows.filter(id__in_literals=[*keys, *_applied(text)])


def _applied(inn: str) -> Iterator[int]:
    payments = Payment.objects.filter(organization__inn=inn).order_by("-id")
    operation_ids = list(payments.values_list("operation_id", flat=True)[:APPLIED_MAX])
    yield from Webhook.objects.filter(operation_id__in=operation_ids).values_list("id", flat=True)


def parse_kopecks(text: str) -> int | None:
    """Return the amount written as 145 000,00 ₽, 145000.00 or 145000; None if it is none."""
    amount = _RUBLES.fullmatch(_SPACE.sub("", text.removesuffix("₽")))
    return int(amount[1]) * 100 + int(amount[2] or 0) if amount else None


def received_since(rows: QuerySet[Webhook], moment: datetime) -> QuerySet[Webhook]:
    """Return those of `rows` received since then. Keys grow with time, so a few lookups find the first."""
    first = first_pk_at(Webhook.objects.all(), "received_at", moment - CLOCK_SKEW_MAX)
    return rows.filter(id__gte=first - SAMPLE_ROWS, received_at__gte=moment)


def matching_operation_ids(text: str) -> set[UUID]:
    """Return the operation ids that `text` may mean; every lookup is by a primary key."""
    ours = parse_operation_id(text)
    aliases = OperationAlias.objects.filter(alias=tbank.alias(text)).values_list("operation_id", flat=True)
    return {*aliases, tochka.operation_id(text), *([ours] if ours else [])}


def bank_references(webhook: Webhook) -> list[str]:
    """Return the bank's ids of the operation.

    Empty if the bank uses our operation id, or if Tochka's body has been deleted.
    """
    if webhook.source == tochka.SOURCE:
        try:
            return [tochka.payment_id(unverified_payload(bytes(webhook.body)))]
        except InvalidDelivery:
            return []
    aliases = OperationAlias.objects.filter(operation_id=webhook.operation_id)
    return sorted(aliases.values_list("bank_reference", flat=True))
