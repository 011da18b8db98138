"""The cast of the tests, and builders for what happens to them.

ROMASHKA and VASILEK are companies with right check digits, IVANOV is a sole trader, and SAMPLE is
the organization of the README's sample, whose INN fails the check, as a bank's samples do.
"""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from django.db import connection, models, transaction

from ingest import inbox
from ingest.models import Webhook
from ledger.models import Organization
from ledger.operation_id import OperationIdField
from ledger.posting import PriorPosting, find_posted, post, try_lock
from ledger.terms import PaymentTerms
from tests.payloads import payment_body

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


def make_organizations(*inns: str) -> None:
    """Open organizations, also inside a test's own transaction, where ledger.posting rightly refuses."""
    known = set(Organization.objects.values_list("inn", flat=True))
    Organization.objects.bulk_create(
        Organization(inn=inn, opened_at=MIDNIGHT_IN_MOSCOW) for inn in sorted(set(inns) - known)
    )


class PostingSource(models.Model):
    """Terms for the ledger to post, in a table of this session only, and with no key but their number."""

    operation_id = OperationIdField()
    inn = models.CharField(max_length=12)
    amount_kopecks = models.BigIntegerField()
    document_number = models.CharField(max_length=255)
    document_date = models.DateTimeField()

    class Meta:
        app_label = "tests"
        managed = False


def posting_source(*batch: PaymentTerms) -> models.QuerySet[PostingSource]:
    """What posting takes: a query whose rows are these terms, in this order."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TEMPORARY TABLE IF NOT EXISTS tests_postingsource (id BIGINT PRIMARY KEY,"
            " operation_id CHAR(32), inn VARCHAR(12), amount_kopecks BIGINT,"
            " document_number VARCHAR(255), document_date DATETIME(6))"
        )
        cursor.execute("DELETE FROM tests_postingsource")
    PostingSource.objects.bulk_create(
        PostingSource(number, *(getattr(told, field) for field in PaymentTerms.__slots__))
        for number, told in enumerate(batch, start=1)
    )
    return PostingSource.objects.all()


def post_payments(*batch: PaymentTerms) -> list[PriorPosting | None]:
    """Post `batch`, its organizations opened before; None for each that was posted now."""
    make_organizations(*(t.inn for t in batch))
    with transaction.atomic():
        told = posting_source(*batch)
        organizations = lock_organizations({t.inn for t in batch})
        before = find_posted(told)
        post(told.exclude(operation_id__in=before), organizations)
    return [before.get(t.operation_id) for t in batch]


def lock_organizations(inns: set[str]) -> dict[str, int]:
    """As posting's lock_free, but it waits for those that somebody holds."""
    ids = list(Organization.objects.filter(inn__in=inns).values_list("id", flat=True))
    list(Organization.objects.select_for_update().filter(id__in=ids).order_by("id"))
    locked = try_lock(inns)
    assert locked.keys() == inns
    return locked


def make_webhook(told: PaymentTerms | None = None, **fields: Any) -> Webhook:
    """A webhook in the inbox, as the door stores it; `fields` are set afterwards."""
    told = told or terms()
    inbox.store(told, payment_body(told))
    Webhook.objects.filter(operation_id=told.operation_id).update(**fields)
    return Webhook.objects.get(operation_id=told.operation_id)


def balances() -> dict[str, int]:
    """Balance in kopecks by INN."""
    return dict(Organization.objects.values_list("inn", "balance_kopecks"))
