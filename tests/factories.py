"""Organizations and factories for the tests.

ROMASHKA and VASILEK are companies with valid INN checksums and IVANOV is a sole trader. SAMPLE is the
organization in the README's sample; its INN fails the checksum, as the banks' samples do.
"""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from django.db import connection, models, transaction

from ingest import inbox
from ingest.models import Webhook
from ledger.inn import is_suspense
from ledger.models import Organization, Payment
from ledger.operation_id import OperationIdField
from ledger.posting import PriorPosting, find_posted, post, replace, reverse, try_lock
from ledger.terms import PaymentTerms
from tests.payloads import payment_body

ROMASHKA = "7707083893"
VASILEK = "7719617469"
IVANOV = "500100732259"
SUSPENSE = "@40702810000000000002"  # of our account in the samples of Tochka
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
    """Create organizations, also inside a test's transaction, where ledger.posting refuses to."""
    known = set(Organization.objects.values_list("inn", flat=True))
    Organization.objects.bulk_create(
        Organization(
            inn=inn, kind="suspense" if is_suspense(inn) else "organization", opened_at=MIDNIGHT_IN_MOSCOW
        )
        for inn in sorted(set(inns) - known)
    )


class PostingSource(models.Model):
    """Terms to post, in a temporary table of this session, with no key other than their number."""

    operation_id = OperationIdField()
    inn = models.CharField(max_length=21)
    amount_kopecks = models.BigIntegerField()
    document_number = models.CharField(max_length=255)
    document_date = models.DateTimeField()

    class Meta:
        app_label = "tests"
        managed = False


def posting_source(*batch: PaymentTerms) -> models.QuerySet[PostingSource]:
    """Return a queryset over these terms, in this order, as `post` takes it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TEMPORARY TABLE IF NOT EXISTS tests_postingsource (id BIGINT PRIMARY KEY,"
            " operation_id CHAR(32), inn VARCHAR(21), amount_kopecks BIGINT,"
            " document_number VARCHAR(255), document_date DATETIME(6))"
        )
        cursor.execute("DELETE FROM tests_postingsource")
    PostingSource.objects.bulk_create(
        PostingSource(number, *(getattr(item, field) for field in PaymentTerms.__slots__))
        for number, item in enumerate(batch, start=1)
    )
    return PostingSource.objects.all()


def post_payments(*batch: PaymentTerms) -> list[PriorPosting | None]:
    """Create the organizations and post `batch`; return each item's earlier posting, None if posted now."""
    make_organizations(*(t.inn for t in batch))
    with transaction.atomic():
        source = posting_source(*batch)
        organizations = lock_organizations({t.inn for t in batch})
        before = find_posted(source)
        post(source.exclude(operation_id__in=before), organizations)
    return [before.get(t.operation_id) for t in batch]


def correct(payment: PaymentTerms, replacement: PaymentTerms | None = None) -> None:
    """Reverse the posted operation of `payment`, and post `replacement` in its place."""
    inns = {payment.inn, replacement.inn if replacement else payment.inn}
    make_organizations(*inns)
    with transaction.atomic():
        organizations = lock_organizations(inns)
        posted = Payment.objects.get(operation_id=payment.operation_id)
        reverse(posted, organizations)
        if replacement:
            replace(posted, replacement, organizations)


def lock_organizations(inns: set[str]) -> dict[str, int]:
    """Lock the organizations like posting.try_lock, but wait for locked ones."""
    ids = list(Organization.objects.filter(inn__in=inns).values_list("id", flat=True))
    list(Organization.objects.select_for_update().filter(id__in=ids).order_by("id"))
    locked = try_lock(inns)
    assert locked.keys() == inns
    return locked


def unsaved_webhook(payment: PaymentTerms | None = None, **fields: Any) -> Webhook:
    """Return a webhook for bulk_create."""
    payment = payment or terms()
    content = {
        "operation_id": payment.operation_id,
        "payer_inn": payment.inn,
        "amount_kopecks": payment.amount_kopecks,
        "document_number": payment.document_number,
        "document_date": payment.document_date,
        "body": b"{}",
    }
    return Webhook(**{**content, **fields})


def make_webhook(payment: PaymentTerms | None = None, **fields: Any) -> Webhook:
    """Store a webhook in the inbox as the endpoint does, then set `fields` on it."""
    payment = payment or terms()
    inbox.store(payment, inbox.Delivery(payment_body(payment)))
    Webhook.objects.filter(operation_id=payment.operation_id).update(**fields)
    return Webhook.objects.get(operation_id=payment.operation_id)


def balances() -> dict[str, int]:
    """Return the balance in kopecks by INN."""
    return dict(Organization.objects.values_list("inn", "balance_kopecks"))
