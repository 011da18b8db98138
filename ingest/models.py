"""The inbox: every webhook the bank told us, and what became of it."""

from datetime import datetime
from typing import ClassVar, Self

from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from ingest.banks.telling import BANK_ID_CHARS_MAX
from ledger.operation_id import OperationIdField
from ledger.terms import PaymentTerms

BANK = "bank"  # the source of what speaks our own contract; other banks have their names
SOURCE_CHARS_MAX = 16
REASON_CHARS_MAX = 255


class WebhookQuerySet(models.QuerySet["Webhook"]):
    def received(self) -> "WebhookQuerySet":
        """Those still to be applied."""
        return self.filter(status=Webhook.Status.RECEIVED)

    def queued(self) -> "WebhookQuerySet":
        """Received and in the common queue: applied in batches, oldest first."""
        return self.received().filter(next_attempt_at=None).order_by("id")

    def due(self, now: datetime) -> "WebhookQuerySet":
        """Received, taken out of the common queue, and due for an attempt."""
        return self.received().filter(next_attempt_at__lte=now).order_by("next_attempt_at")

    def failed(self) -> "WebhookQuerySet":
        return self.filter(status=Webhook.Status.FAILED)

    def telling_terms(self) -> "WebhookQuerySet":
        """With the fields of PaymentTerms by their names there, as the ledger wants to be told."""
        return self.annotate(inn=F("payer_inn"))


class Webhook(models.Model):
    """One operation as the bank first told it. This row is the queue; no message carries its data.

    received → applied; received → failed → (replay) → received; failed → dismissed.
    """

    class Status(models.TextChoices):
        RECEIVED = "received"
        APPLIED = "applied"
        FAILED = "failed"
        DISMISSED = "dismissed"

    operation_id = OperationIdField(unique=True)
    payer_inn = models.CharField("payer INN", max_length=12)
    amount_kopecks = models.BigIntegerField()
    document_number = models.CharField(max_length=255)
    document_date = models.DateTimeField()
    body = models.BinaryField(help_text="the bytes as received")
    received_at = models.DateTimeField(default=timezone.now)
    source = models.CharField(max_length=SOURCE_CHARS_MAX, default=BANK)

    status = models.CharField(max_length=9, choices=Status.choices, default=Status.RECEIVED)
    applied_at = models.DateTimeField(null=True)
    # None: in the common queue. Otherwise an attempt is made for it, not before this moment.
    next_attempt_at = models.DateTimeField(null=True)
    attempts = models.PositiveSmallIntegerField(default=0)  # since received or replayed
    last_error = models.TextField(blank=True, default="")

    objects = WebhookQuerySet.as_manager()

    class Meta:
        indexes = [models.Index(fields=["status", "next_attempt_at"], name="webhook_to_do")]
        constraints = [models.CheckConstraint(condition=Q(amount_kopecks__gt=0), name="webhook_positive")]
        permissions = [("replay_webhook", "Can replay failed webhooks")]

    def __str__(self) -> str:
        return str(self.operation_id)

    @property
    def terms(self) -> PaymentTerms:
        return PaymentTerms(
            operation_id=self.operation_id,
            inn=self.payer_inn,
            amount_kopecks=self.amount_kopecks,
            document_number=self.document_number,
            document_date=self.document_date,
        )


class BankOperation(models.Model):
    """A bank's own id of an operation, for banks of whose id alone our operation id can't be made.

    Unique: the first telling decides for ever which operation the bank's id means. Several may mean one.
    """

    alias = OperationIdField(primary_key=True)  # made of the bank's id, in the bank's namespace
    bank_id = models.CharField(max_length=BANK_ID_CHARS_MAX, help_text="as the bank told it")
    operation_id = OperationIdField(db_index=True)

    def __str__(self) -> str:
        return self.bank_id


class KeptDelivery(models.Model):
    """A delivery that did not become a webhook, kept for a person to look at, bounded in number and age."""

    received_at = models.DateTimeField(default=timezone.now, db_index=True)
    source = models.CharField(max_length=SOURCE_CHARS_MAX, default=BANK)

    objects: ClassVar[models.Manager["Self"]] = models.Manager()

    class Meta:
        abstract = True


class RejectedDelivery(KeptDelivery):
    """Answered 400: it can never become valid."""

    reason = models.CharField(max_length=REASON_CHARS_MAX)
    body = models.BinaryField(help_text="the bytes as received")

    class Meta:
        verbose_name_plural = "rejected deliveries"

    def __str__(self) -> str:
        return self.reason


class IgnoredDelivery(KeptDelivery):
    """Answered 200, and no payment to credit: an outgoing one, one not booked, a foreign currency."""

    reason = models.CharField(max_length=REASON_CHARS_MAX)
    body = models.BinaryField(help_text="the bytes as received")

    class Meta:
        verbose_name_plural = "ignored deliveries"

    def __str__(self) -> str:
        return self.reason


class RepeatedDelivery(KeptDelivery):
    """A webhook delivered once more, with the same content."""

    # No constraint in the database: its check would wait for a worker that has the webhook locked,
    # and the bank would wait with it.
    webhook = models.ForeignKey(
        Webhook, on_delete=models.DO_NOTHING, db_constraint=False, related_name="repeated_deliveries"
    )

    class Meta:
        verbose_name_plural = "repeated deliveries"


class ConflictingDelivery(KeptDelivery):
    """A webhook delivered once more, with other content: nothing was posted for it."""

    webhook = models.ForeignKey(
        Webhook, on_delete=models.DO_NOTHING, db_constraint=False, related_name="conflicting_deliveries"
    )
    difference = models.CharField(max_length=255, help_text="the fields that differ")
    body = models.BinaryField(help_text="the bytes as received")

    class Meta:
        verbose_name_plural = "conflicting deliveries"

    def __str__(self) -> str:
        return f"other {self.difference}"


class Verification(models.Model):
    """One run of verify_ledger: to its end, or to the first drift."""

    ended_at = models.DateTimeField(default=timezone.now)
    took = models.DurationField()
    rows_looked_at = models.BigIntegerField()
    drift = models.TextField(blank=True, default="", help_text="empty: all is right")

    objects: ClassVar[models.Manager["Verification"]] = models.Manager()

    def __str__(self) -> str:
        return "drift" if self.drift else "all is right"
