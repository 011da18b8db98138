"""The upper limit of posting: the same payments and log entries, prepared, in multi-row INSERTs."""

from dataclasses import dataclass, field
from typing import Any

from django.db import connection, transaction
from django.db.models import Max
from django.utils import timezone

from ingest.models import Webhook
from ledger.models import Organization, Payment
from ledger.posting import create_organizations

ROWS_PER_TRANSACTION = 500
_PAYMENT = (
    "INSERT INTO ledger_payment (id, operation_id, amount_kopecks, document_number, document_date, "
    "created_at, organization_id) VALUES (%s, %s, %s, %s, %s, %s, %s)"
)
_ENTRY = (
    "INSERT INTO ledger_balancelog (organization_id, seq, payment_id, amount_kopecks, balance_after_kopecks, "
    "created_at) VALUES (%s, %s, %s, %s, %s, %s)"
)


@dataclass
class Rows:
    """The queue as rows of the ledger."""

    payments: list[tuple[Any, ...]] = field(default_factory=list)
    entries: list[tuple[Any, ...]] = field(default_factory=list)
    organizations: dict[str, Organization] = field(default_factory=dict)  # with their final balances, by INN


def prepare() -> Rows:
    """Return the rows for the queue, and mark all of it as applied."""
    queued = list(Webhook.objects.queued().defer("body"))
    create_organizations({webhook.payer_inn for webhook in queued})
    rows = Rows(organizations={each.inn: each for each in Organization.objects.all()})
    payment_id = Payment.objects.aggregate(last=Max("id"))["last"] or 0
    now = timezone.now().replace(tzinfo=None)
    for webhook in queued:
        payment_id += 1
        organization = rows.organizations[webhook.payer_inn]
        organization.last_seq += 1
        organization.balance_kopecks += webhook.amount_kopecks
        amount, date = webhook.amount_kopecks, webhook.document_date.replace(tzinfo=None)
        terms = webhook.operation_id.hex, amount, webhook.document_number, date
        rows.payments.append((payment_id, *terms, now, organization.pk))
        place = organization.pk, organization.last_seq, payment_id
        rows.entries.append((*place, amount, organization.balance_kopecks, now))
    Webhook.objects.queued().update(status=Webhook.Status.APPLIED, applied_at=timezone.now())
    return rows


def insert(rows: Rows) -> None:
    """Insert the rows; this is what is measured."""
    for first in range(0, len(rows.payments), ROWS_PER_TRANSACTION):
        batch = slice(first, first + ROWS_PER_TRANSACTION)
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.executemany(_PAYMENT, rows.payments[batch])
            cursor.executemany(_ENTRY, rows.entries[batch])


def update_balances(rows: Rows) -> None:
    """Write the balances, so that the ledger is consistent again."""
    Organization.objects.bulk_update(rows.organizations.values(), ["balance_kopecks", "last_seq"])
