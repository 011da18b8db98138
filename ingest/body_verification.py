"""Verification of webhooks against their stored bodies: a webhook's terms are those that its bank sent.

Column grants keep the application's database user from changing a webhook's terms; no trigger does
(ingest/append_only.py). Skipped are bodies that retention has emptied, and Tochka's whose customerCode is no
longer in TOCHKA_CUSTOMER_CODES. Signatures are not verified again, because keys are rotated.
"""

from collections.abc import Iterator
from dataclasses import fields
from datetime import timedelta
from typing import Any

from ingest.banks.events import CreditEvent
from ingest.banks.registry import read_stored
from ingest.exceptions import InvalidDelivery, NotAuthorized
from ingest.models import STATEMENT_SOURCE, OperationAlias, Webhook
from ledger.terms import PaymentTerms
from ledger.verification import Drift, Progress

BODIES_PER_PAGE = 500  # of at most 64 KiB each
TIME_ZONE_DIFFERENCE_MAX = timedelta(hours=26)


def verify_bodies(progress: Progress, after: int) -> Iterator[Drift]:
    """Yield each drift between a webhook after the primary key `after` and its stored body."""
    while page := list(Webhook.objects.filter(pk__gt=after).order_by("pk")[:BODIES_PER_PAGE]):
        progress("bodies", len(page))
        for webhook in page:
            if webhook.body and webhook.source != STATEMENT_SOURCE:  # no bank sent that body
                yield from _verify_body(webhook)
        after = page[-1].pk


def _verify_body(webhook: Webhook) -> Iterator[Drift]:
    where = webhook.payer_inn, None, webhook.operation_id
    rule = "a stored body is a payment of its bank"
    try:
        event = read_stored(webhook.source, webhook.body)
    except NotAuthorized:
        return
    except (InvalidDelivery, KeyError) as exc:
        yield Drift("body", rule, "a payment", repr(exc), *where)
        return
    if not isinstance(event, CreditEvent):
        yield Drift("body", rule, "a payment", "none", *where)
        return
    stored = webhook.terms
    for name in (field.name for field in fields(PaymentTerms)):
        expected, found = getattr(event.terms, name), getattr(stored, name)
        if expected != found and not _may_differ(name, event, stored):
            rule = f"{name.removesuffix('_kopecks')} of a webhook is that of its stored body"
            yield Drift(name, rule, _value(expected), _value(found), *where)


def _may_differ(name: str, event: CreditEvent, stored: PaymentTerms) -> bool:
    """Return whether a field may differ from the body."""
    if name == "operation_id" and event.bank_reference:  # the reference keeps its first operation id
        alias = event.bank_reference.alias
        return OperationAlias.objects.filter(alias=alias, operation_id=stored.operation_id).exists()
    # A date without an offset was read in the BANK_TIME_ZONE of that time.
    difference = abs(event.terms.document_date - stored.document_date)
    return name == "document_date" and difference <= TIME_ZONE_DIFFERENCE_MAX


def _value(value: Any) -> int | str:
    return value if isinstance(value, int) else str(value)
