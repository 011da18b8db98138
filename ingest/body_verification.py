"""The kept bodies of webhooks, parsed once more: what a webhook says is what its bank said.

Column grants keep the application's database user from changing a webhook's terms, no trigger does
(ingest/append_only.py). Nothing is said by a body that retention has emptied, and by one of Tochka's whose
customerCode is no longer among ours. No signature is verified again, because keys change.
"""

from collections.abc import Iterator
from dataclasses import fields
from datetime import timedelta
from typing import Any

from ingest.banks.events import CreditEvent
from ingest.banks.registry import ENDPOINTS_BY_NAME
from ingest.exceptions import InvalidDelivery, NotAuthorized
from ingest.models import OperationAlias, Webhook
from ingest.signatures import unverified_payload
from ledger.terms import PaymentTerms
from ledger.verification import Drift, Progress

BODIES_PER_PAGE = 500  # of at most 64 KiB each
ZONES_APART_MAX = timedelta(hours=26)


def verify_bodies(progress: Progress, after: int) -> Iterator[Drift]:
    """Each drift between a webhook behind the primary key `after` and its kept body."""
    while page := list(Webhook.objects.filter(pk__gt=after).order_by("pk")[:BODIES_PER_PAGE]):
        progress("bodies", len(page))
        for webhook in page:
            if webhook.body:
                yield from _compared(webhook)
        after = page[-1].pk


def _compared(webhook: Webhook) -> Iterator[Drift]:
    where = webhook.payer_inn, None, webhook.operation_id
    try:
        read = ENDPOINTS_BY_NAME[webhook.source].read(unverified_payload(bytes(webhook.body)))
    except NotAuthorized:
        return
    except (InvalidDelivery, KeyError) as exc:
        read = None
        yield Drift("body", "a kept body is a payment of its bank", "a payment", repr(exc), *where)
    if isinstance(read, CreditEvent):
        stored = webhook.terms
        for name in (field.name for field in fields(PaymentTerms)):
            told, found = getattr(read.terms, name), getattr(stored, name)
            if told != found and not _is_explained(name, read, stored):
                rule = f"{name.removesuffix('_kopecks')} of a webhook is that of its kept body"
                yield Drift(name, rule, _plain(told), _plain(found), *where)
    elif read is not None:
        yield Drift("body", "a kept body is a payment of its bank", "a payment", "none", *where)


def _is_explained(name: str, read: CreditEvent, stored: PaymentTerms) -> bool:
    """Whether a webhook may differ from its body in this."""
    if name == "operation_id" and read.bank_reference:  # the first telling of the bank's id decided
        return OperationAlias.objects.filter(
            alias=read.bank_reference.alias, operation_id=stored.operation_id
        ).exists()
    # A date without an offset was read in the zone that BANK_TIME_ZONE was then.
    return name == "document_date" and abs(read.terms.document_date - stored.document_date) <= ZONES_APART_MAX


def _plain(value: Any) -> int | str:
    return value if isinstance(value, int) else str(value)
