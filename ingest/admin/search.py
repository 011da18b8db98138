"""Finding webhooks among millions without an index that each of them would pay for at the door.

An operation id, ours or the bank's own, finds any. Failed and dismissed ones are a small set, by the index
of the status: in it any field can be looked for. Of the applied ones the ledger finds an organization's
newest, by its own indexes.
"""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Q, QuerySet

from core.db import lookups  # noqa: F401 registers the look-up id__in_literals
from core.db.pk_by_time import SAMPLE_ROWS, first_pk_at
from ingest.banks import tbank, tochka
from ingest.exceptions import InvalidDelivery
from ingest.models import OperationAlias, Webhook
from ingest.signatures import unverified_payload
from ledger.inn import is_inn
from ledger.models import Payment
from ledger.operation_id import parse_operation_id

APPLIED_MAX = 200  # webhooks, of the organization looked for
FAILED_OR_DISMISSED_MAX = 10_000
CLOCK_SKEW_MAX = timedelta(minutes=5)  # at most, between web processes
_SPACE = re.compile(r"\s+")
_RUBLES = re.compile(r"([0-9]{1,14})(?:[.,]([0-9]{2}))?")
FAILED_OR_DISMISSED = [Webhook.Status.FAILED, Webhook.Status.DISMISSED]


def search(rows: QuerySet[Webhook], text: str) -> QuerySet[Webhook]:
    """Those of `rows` with this operation id, INN, document number or amount in rubles."""
    called = list(rows.filter(operation_id__in=matching_operation_ids(text)).values_list("pk", flat=True))
    if called or parse_operation_id(text):
        return rows.filter(pk__in=called)
    meant = Q(payer_inn=text) | Q(document_number=text)
    if (kopecks := parse_kopecks(text)) is not None:
        meant |= Q(amount_kopecks=kopecks)
    if not is_inn(text):
        return rows.filter(meant, status__in=FAILED_OR_DISMISSED)
    # Keys first: no server would go by two indexes for one condition OR the other.
    given_up = Webhook.objects.filter(meant, status__in=FAILED_OR_DISMISSED).values_list("id", flat=True)
    return rows.filter(id__in_literals=[*given_up[:FAILED_OR_DISMISSED_MAX], *_applied(text)])


def _applied(inn: str) -> Iterator[int]:
    payments = Payment.objects.filter(organization__inn=inn).order_by("-id")
    operation_ids = list(payments.values_list("operation_id", flat=True)[:APPLIED_MAX])
    yield from Webhook.objects.filter(operation_id__in=operation_ids).values_list("id", flat=True)


def parse_kopecks(text: str) -> int | None:
    """The amount that people write as 145 000,00 ₽, 145000.00 or 145000; None if it is none."""
    amount = _RUBLES.fullmatch(_SPACE.sub("", text.removesuffix("₽")))
    return int(amount[1]) * 100 + int(amount[2] or 0) if amount else None


def received_since(rows: QuerySet[Webhook], moment: datetime) -> QuerySet[Webhook]:
    """Those of `rows` that came since then. Keys grow with time: a few look-ups find where to begin."""
    first = first_pk_at(Webhook.objects.all(), "received_at", moment - CLOCK_SKEW_MAX)
    return rows.filter(id__gte=first - SAMPLE_ROWS, received_at__gte=moment)


def matching_operation_ids(text: str) -> set[UUID]:
    """The operation ids that `text` may mean; every look-up is by a primary key."""
    ours = parse_operation_id(text)
    at_tbank = OperationAlias.objects.filter(alias=tbank.alias(text)).values_list("operation_id", flat=True)
    return {*at_tbank, tochka.operation_id(text), *([ours] if ours else [])}


def bank_references(webhook: Webhook) -> list[str]:
    """What the bank calls it; none where the bank uses our operation id, or Tochka's body is gone."""
    if webhook.source == tochka.SOURCE:
        try:
            return [tochka.payment_id(unverified_payload(bytes(webhook.body)))]
        except InvalidDelivery:
            return []
    known = OperationAlias.objects.filter(operation_id=webhook.operation_id)
    return sorted(known.values_list("bank_reference", flat=True))
