"""Finding webhooks among millions without an index that each of them would pay for at the door.

Failed and dismissed ones are a small set, by the index of the status: in it any field can be looked for.
Of the applied ones the ledger finds an organization's newest, by its own indexes. An operation id finds any.
"""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta

from django.db.models import Max, Min, Q, QuerySet

from ingest.models import Webhook
from ledger import among  # noqa: F401 registers the look-up id__among
from ledger.models import Payment
from ledger.operation_id import as_operation_id

APPLIED_MAX = 200  # webhooks, of the organization looked for
GIVEN_UP_MAX = 10_000
CLOCKS_DIFFER = timedelta(minutes=5)  # at most, between web processes
_INN = re.compile(r"[0-9]{10}(?:[0-9]{2})?")
_SPACE = re.compile(r"\s+")
_RUBLES = re.compile(r"([0-9]{1,14})(?:[.,]([0-9]{2}))?")
GIVEN_UP = [Webhook.Status.FAILED, Webhook.Status.DISMISSED]


def find(rows: QuerySet[Webhook], text: str) -> QuerySet[Webhook]:
    """Those of `rows` with this operation id, INN, document number or amount in rubles."""
    if operation_id := as_operation_id(text):
        return rows.filter(operation_id=operation_id)
    meant = Q(payer_inn=text) | Q(document_number=text)
    if (kopecks := kopecks_in(text)) is not None:
        meant |= Q(amount_kopecks=kopecks)
    if not _INN.fullmatch(text):
        return rows.filter(meant, status__in=GIVEN_UP)
    # Keys first: no server would go by two indexes for one condition OR the other.
    given_up = Webhook.objects.filter(meant, status__in=GIVEN_UP).values_list("id", flat=True)
    return rows.filter(id__among=[*given_up[:GIVEN_UP_MAX], *_applied(text)])


def _applied(inn: str) -> Iterator[int]:
    payments = Payment.objects.filter(organization__inn=inn).order_by("-id")
    operation_ids = list(payments.values_list("operation_id", flat=True)[:APPLIED_MAX])
    yield from Webhook.objects.filter(operation_id__in=operation_ids).values_list("id", flat=True)


def kopecks_in(text: str) -> int | None:
    """The amount that people write as 145 000,00 ₽, 145000.00 or 145000; None if it is none."""
    amount = _RUBLES.fullmatch(_SPACE.sub("", text.removesuffix("₽")))
    return int(amount[1]) * 100 + int(amount[2] or 0) if amount else None


def received_since(rows: QuerySet[Webhook], moment: datetime) -> QuerySet[Webhook]:
    """Those of `rows` that came since then. Keys grow with time: a few look-ups find where to begin."""
    return rows.filter(id__gte=_first_since(moment - CLOCKS_DIFFER), received_at__gte=moment)


def _first_since(moment: datetime) -> int:
    ends = Webhook.objects.aggregate(low=Min("id"), high=Max("id"))
    low, high = ends["low"] or 0, (ends["high"] or 0) + 1
    while low < high:
        middle = (low + high) // 2
        found = Webhook.objects.filter(id__gte=middle).order_by("id").values_list("id", "received_at").first()
        if found is None or found[1] >= moment:
            high = middle
        else:
            low = found[0] + 1
    return low
