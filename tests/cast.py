"""The cast of the tests, and builders for what happens to them.

ROMASHKA and VASILEK are companies with right check digits, IVANOV is a sole trader, and SAMPLE is
the organization of the README's sample, whose INN fails the check, as a bank's samples do.
"""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from django.db import transaction

from ingest import inbox
from ingest.models import Webhook
from ledger.models import Organization
from ledger.posting import Outcome, post
from ledger.terms import PaymentTerms

ROMASHKA = "7707083893"
VASILEK = "7719617469"
IVANOV = "500100732259"
SAMPLE = "1234567890"

MIDNIGHT_IN_MOSCOW = datetime(2024, 4, 27, 21, tzinfo=UTC)


def terms(
    amount_kopecks: int = 100_00,
    *,
    inn: str = ROMASHKA,
    operation_id: UUID | None = None,
    document_number: str = "PAY-328",
    document_date: datetime = MIDNIGHT_IN_MOSCOW,
) -> PaymentTerms:
    return PaymentTerms(operation_id or uuid4(), inn, amount_kopecks, document_number, document_date)


def opened(*inns: str) -> None:
    """Open organizations, also inside a test's own transaction, where ledger.posting rightly refuses."""
    known = set(Organization.objects.values_list("inn", flat=True))
    Organization.objects.bulk_create(
        Organization(inn=inn, opened_at=MIDNIGHT_IN_MOSCOW) for inn in sorted(set(inns) - known)
    )


def posted(*batch: PaymentTerms) -> list[Outcome]:
    """Post `batch`, its organizations opened before."""
    opened(*(t.inn for t in batch))
    with transaction.atomic():
        return post(batch)


def received(told: PaymentTerms | None = None, **fields: Any) -> Webhook:
    """A webhook in the inbox, as the door stores it; `fields` are set afterwards."""
    told = told or terms()
    inbox.store(told, body(told))
    Webhook.objects.filter(operation_id=told.operation_id).update(**fields)
    return Webhook.objects.get(operation_id=told.operation_id)


def body(told: PaymentTerms, **changed: Any) -> bytes:
    """What the bank would POST; `changed` fields replace those of `told`."""
    fields = {
        "operation_id": str(told.operation_id),
        "amount": f"{told.amount_kopecks // 100}.{told.amount_kopecks % 100:02}",
        "payer_inn": told.inn,
        "document_number": told.document_number,
        "document_date": told.document_date.isoformat(),
    }
    return json.dumps(fields | changed).encode()


def balances() -> dict[str, int]:
    """Balance in kopecks by INN."""
    return dict(Organization.objects.values_list("inn", "balance_kopecks"))
