"""The inbox: every webhook the bank told us, and what became of it."""

from datetime import datetime, timedelta
from typing import ClassVar, Self

from django.conf import settings
from django.contrib.auth.models import User
from django.db import models
from django.db.models import Case, F, Q, When
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from core.client_ip import TEXT_CHARS_MAX
from ingest.banks.events import BANK_REFERENCE_CHARS_MAX
from ingest.terms_diff import field_labels
from ledger.operation_id import OperationIdField
from ledger.terms import PaymentTerms

DEFAULT_SOURCE = "bank"  # the source of what speaks our own contract; other banks have their names
SOURCE_CHARS_MAX = 16
REASON_CHARS_MAX = 255
ERROR_FINGERPRINT_CHARS_MAX = 120
ACTION_REASON_CHARS_MAX = 500


class WebhookQuerySet(models.QuerySet["Webhook"]):
    def received(self) -> "WebhookQuerySet":
        """Those still to be applied."""
        return self.filter(status=Webhook.Status.RECEIVED)

    def queued(self) -> "WebhookQuerySet":
        """Received and in the common queue, oldest first. Batches take them by `queued_inn`."""
        return self.received().filter(next_attempt_at=None).order_by("id")

    def due(self, now: datetime) -> "WebhookQuerySet":
        """Received, taken out of the common queue, and due for an attempt."""
        return self.received().filter(next_attempt_at__lte=now).order_by("next_attempt_at")

    def failed(self) -> "WebhookQuerySet":
        return self.filter(status=Webhook.Status.FAILED)

    def with_payment_terms(self) -> "WebhookQuerySet":
        """With the fields of PaymentTerms by their names there, as the ledger wants to be told."""
        return self.annotate(inn=F("payer_inn"))


class Webhook(models.Model):
    """One operation as the bank first told it. This row is the queue; no message carries its data.

    received → applied; received → failed → (replay) → received; failed → dismissed.
    """

    class Status(models.TextChoices):
        RECEIVED = "received", _("received")
        APPLIED = "applied", _("applied")
        FAILED = "failed", _("failed")
        DISMISSED = "dismissed", _("dismissed")

    operation_id = OperationIdField(_("operation id"), unique=True)
    payer_inn = models.CharField(_("payer INN"), max_length=12)
    amount_kopecks = models.BigIntegerField(_("amount, kopecks"))
    document_number = models.CharField(_("document number"), max_length=255)
    document_date = models.DateTimeField(_("document date"))
    body = models.BinaryField(_("body"), help_text=_("the bytes as received"))
    received_at = models.DateTimeField(_("received"), default=timezone.now)
    source = models.CharField(
        _("source"), max_length=SOURCE_CHARS_MAX, default=DEFAULT_SOURCE, db_default=DEFAULT_SOURCE
    )
    client_ip = models.CharField(
        _("came from"), max_length=TEXT_CHARS_MAX, blank=True, default="", db_default=""
    )

    status = models.CharField(_("status"), max_length=9, choices=Status.choices, default=Status.RECEIVED)
    applied_at = models.DateTimeField(_("applied"), null=True)
    # None: in the common queue. Otherwise an attempt is made for it, not before this moment.
    next_attempt_at = models.DateTimeField(_("next attempt"), null=True)
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0)  # since received or replayed
    last_error = models.TextField(_("last error"), blank=True, default="")
    error_fingerprint = models.CharField(  # of last_error
        _("cause of the failure"),
        max_length=ERROR_FINGERPRINT_CHARS_MAX,
        blank=True,
        default="",
        db_default="",
    )

    # The payer while the webhook is in the common queue, else NULL: its index is the queue by organization.
    # The database computes it, so no writer can forget it, nor a process of the previous version.
    queued_inn = models.GeneratedField(
        expression=Case(When(status=Status.RECEIVED, next_attempt_at=None, then=F("payer_inn"))),
        output_field=models.CharField(max_length=12, null=True),
        db_persist=False,
    )

    objects = WebhookQuerySet.as_manager()

    class Meta:
        verbose_name = _("webhook")
        verbose_name_plural = _("webhooks")
        indexes = [
            models.Index(fields=["status", "next_attempt_at"], name="webhook_due"),
            models.Index(fields=["queued_inn", "id"], name="webhook_queued"),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(amount_kopecks__gt=0), name="webhook_amount_positive")
        ]
        permissions = [
            ("replay_webhook", "Can replay failed webhooks"),
            ("dismiss_webhook", "Can dismiss failed webhooks"),
            ("resolve_conflict", "Can resolve conflicts"),
        ]

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


class OperationAlias(models.Model):
    """A bank's own id of an operation, for banks of whose id alone our operation id can't be made.

    Unique: the first telling decides for ever which operation the bank's id means. Several may mean one.
    """

    alias = OperationIdField(primary_key=True)  # made of the bank's id, in the bank's namespace
    bank_reference = models.CharField(max_length=BANK_REFERENCE_CHARS_MAX, help_text=_("as the bank told it"))
    operation_id = OperationIdField(db_index=True)

    def __str__(self) -> str:
        return self.bank_reference


class DeliveryRecord(models.Model):
    """A delivery that did not become a webhook, kept for a person to look at, bounded in number and age."""

    received_at = models.DateTimeField(_("received"), default=timezone.now, db_index=True)
    # Its index has the keys of each source in their order: ingest/inbox.py counts along it.
    source = models.CharField(
        _("source"),
        max_length=SOURCE_CHARS_MAX,
        default=DEFAULT_SOURCE,
        db_default=DEFAULT_SOURCE,
        db_index=True,
    )
    client_ip = models.CharField(
        _("came from"), max_length=TEXT_CHARS_MAX, blank=True, default="", db_default=""
    )

    objects: ClassVar[models.Manager["Self"]] = models.Manager()

    class Meta:
        abstract = True

    @classmethod
    def deletable(cls) -> "models.QuerySet[Self]":
        """Those that may be deleted when they are old."""
        return cls.objects.all()


class RejectedDelivery(DeliveryRecord):
    """Answered 400: it can never become valid."""

    reason = models.CharField(_("reason"), max_length=REASON_CHARS_MAX)
    body = models.BinaryField(_("body"), help_text=_("the bytes as received"))

    class Meta:
        verbose_name = _("rejected delivery")
        verbose_name_plural = _("rejected deliveries")

    def __str__(self) -> str:
        return self.reason


class IgnoredDelivery(DeliveryRecord):
    """Answered 200, and no payment to credit: an outgoing one, one not booked, a foreign currency."""

    reason = models.CharField(_("reason"), max_length=REASON_CHARS_MAX)
    body = models.BinaryField(_("body"), help_text=_("the bytes as received"))

    class Meta:
        verbose_name = _("ignored delivery")
        verbose_name_plural = _("ignored deliveries")

    def __str__(self) -> str:
        return self.reason


class UnrecognizedDelivery(DeliveryRecord):
    """Answered 200: authentic, possibly money, and nothing that the adapter can credit or knows to ignore.

    It is open until a person has closed it, and an open one is never deleted: it may be all there is of a
    payment. A bank that repeats itself repeats the payload, which is stored once for each source.
    """

    class Outcome(models.TextChoices):
        UNTRIED = "", _("open")
        TRIED = "tried", _("open, processed again and still unrecognized")
        STORED = "stored", _("stored as a webhook")
        DUPLICATE = "duplicate", _("was stored already")
        CONFLICT = "conflict", _("a conflict with a webhook")
        IGNORED = "ignored", _("known to be no payment")
        DISMISSED = "dismissed", _("dismissed")

    OPEN = (Outcome.UNTRIED, Outcome.TRIED)

    reason = models.CharField(_("reason"), max_length=REASON_CHARS_MAX)
    body = models.BinaryField(_("body"), help_text=_("the bytes as received"))
    digest = models.CharField(max_length=64, help_text=_("SHA-256 of the payload that was verified"))
    outcome = models.CharField(
        _("state"), max_length=9, choices=Outcome.choices, blank=True, default=Outcome.UNTRIED
    )
    # The last act about it. With an empty outcome: the act has still to reach it. No constraint, so that the
    # endpoint's INSERT checks nothing.
    last_action = models.ForeignKey(
        "OperatorAction",
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        null=True,
        related_name="unrecognized_deliveries",
        verbose_name=_("last operator action"),
    )
    webhook = models.ForeignKey(  # that it became, or met
        Webhook,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        null=True,
        related_name="+",
        verbose_name=_("webhook"),
    )

    class Meta:
        verbose_name = _("unrecognized delivery")
        verbose_name_plural = _("unrecognized deliveries")
        # The first counts the open ones, and finds those that an act has still to reach.
        indexes = [models.Index(fields=["outcome", "last_action"], name="unrecognized_outcome")]
        constraints = [
            models.UniqueConstraint(fields=["source", "digest"], name="unrecognized_unique_payload")
        ]
        permissions = [
            ("process_unrecognized", "Can process unrecognized deliveries again"),
            ("dismiss_unrecognized", "Can dismiss unrecognized deliveries"),
        ]

    def __str__(self) -> str:
        return self.reason

    @classmethod
    def open_deliveries(cls) -> "models.QuerySet[Self]":
        """The open ones."""
        return cls.objects.filter(outcome__in=cls.OPEN)

    @classmethod
    def deletable(cls) -> "models.QuerySet[Self]":
        """Closed ones, and only as long after the act as others are kept after their receipt."""
        long_ago = timezone.now() - timedelta(days=settings.DELIVERY_RETENTION_DAYS)
        return cls.objects.exclude(outcome__in=cls.OPEN).filter(last_action__at__lt=long_ago)


class DuplicateDelivery(DeliveryRecord):
    """A webhook delivered once more, with the same content."""

    # No constraint in the database: its check would wait for a worker that has the webhook locked,
    # and the bank would wait with it.
    webhook = models.ForeignKey(
        Webhook,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        related_name="duplicate_deliveries",
        verbose_name=_("webhook"),
    )

    class Meta:
        verbose_name = _("repeated delivery")
        verbose_name_plural = _("repeated deliveries")


class ConflictingDelivery(DeliveryRecord):
    """A webhook delivered once more, with other content: nothing was posted for it."""

    webhook = models.ForeignKey(
        Webhook,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        related_name="conflicting_deliveries",
        verbose_name=_("webhook"),
    )
    difference = models.CharField(_("difference"), max_length=255, help_text=_("the fields that differ"))
    body = models.BinaryField(_("body"), help_text=_("the bytes as received"))
    # None: an open conflict. No constraint, so that the door's INSERT checks nothing.
    resolved_by = models.ForeignKey(
        "OperatorAction",
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        null=True,
        related_name="+",
        verbose_name=_("resolved by"),
    )

    class Meta:
        verbose_name = _("conflicting delivery")
        verbose_name_plural = _("conflicting deliveries")

    def __str__(self) -> str:
        return gettext("other {fields}").format(fields=field_labels(self.difference))

    @classmethod
    def deletable(cls) -> "models.QuerySet[Self]":
        """An open conflict waits for a person, however old it is."""
        return cls.objects.filter(resolved_by__isnull=False)


class LedgerVerification(models.Model):
    """One verification of the books, of all or of what is new since the last one without drift.

    The keys are those of the newest rows when it began: without drift, all up to them is proven.
    """

    ended_at = models.DateTimeField(_("ended"), default=timezone.now)
    duration = models.DurationField(_("duration"))
    rows_scanned = models.BigIntegerField(_("rows looked at"))
    drift = models.TextField(_("drift"), blank=True, default="", help_text=_("empty: all is right"))
    drifts_found = models.PositiveIntegerField(_("drifts found"), default=0, db_default=0)
    is_full = models.BooleanField(_("of all the books"), default=True, db_default=True)
    payments_to = models.BigIntegerField(default=0, db_default=0)
    entries_to = models.BigIntegerField(default=0, db_default=0)
    webhooks_to = models.BigIntegerField(default=0, db_default=0)

    objects: ClassVar[models.Manager["LedgerVerification"]] = models.Manager()

    class Meta:
        verbose_name = _("verification")
        verbose_name_plural = _("verifications")

    def __str__(self) -> str:
        return gettext("drift") if self.drift else gettext("all is right")


class Misconfiguration(models.Model):
    """A setting of ours that keeps deliveries from being taken in: one row for each setting."""

    setting = models.CharField(max_length=16, primary_key=True)  # an ingest.exceptions.Setting
    detail = models.CharField(max_length=253)  # as long as a host name can be
    seen_at = models.DateTimeField()

    objects: ClassVar[models.Manager["Misconfiguration"]] = models.Manager()

    def __str__(self) -> str:
        return self.setting


class OperatorAction(models.Model):
    """A person did something about webhooks or unrecognized deliveries, for a reason.

    Never changed; the database refuses.
    """

    class Kind(models.TextChoices):
        REPLAY = "replay", _("replay")
        DISMISS = "dismiss", _("dismissal")
        RESOLVE = "resolve", _("resolution of conflicts")
        PROCESS = "process", _("processing of unrecognized deliveries")
        DISCARD = "discard", _("dismissal of unrecognized deliveries")

    kind = models.CharField(_("kind"), max_length=7, choices=Kind.choices)
    at = models.DateTimeField(_("when"), default=timezone.now)
    by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", verbose_name=_("user"))
    by_name = models.CharField(_("by"), max_length=255)  # as it was then; names change
    reason = models.CharField(_("reason"), max_length=ACTION_REASON_CHARS_MAX)

    class Meta:
        verbose_name = _("operator action")
        verbose_name_plural = _("operator actions")

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.pk}"


class OperatorActionItem(models.Model):
    """One of the webhooks that an act is about: what became of it is written once, and never changed."""

    class Outcome(models.TextChoices):
        PENDING = "", _("not yet reached")
        DONE = "done", _("done")
        # Or it was left alone, because it was this by then:
        APPLIED = "applied", _("applied already")
        RECEIVED = "received", _("waiting to be applied anyway")
        FAILED = "failed", _("failed again meanwhile")
        DISMISSED = "dismissed", _("dismissed already")
        RESOLVED = "resolved", _("without an open conflict")
        UNKNOWN = "unknown", _("unknown")

    action = models.ForeignKey(
        OperatorAction, on_delete=models.PROTECT, related_name="webhooks", db_index=False
    )
    webhook = models.ForeignKey(
        Webhook, on_delete=models.DO_NOTHING, db_constraint=False, related_name="action_items"
    )
    outcome = models.CharField(max_length=9, choices=Outcome.choices, blank=True, default=Outcome.PENDING)

    class Meta:
        # The first finds what is left to do, and counts outcomes.
        indexes = [models.Index(fields=["outcome", "action"], name="action_item_outcome")]
        constraints = [models.UniqueConstraint(fields=["action", "webhook"], name="action_item_unique")]

    def __str__(self) -> str:
        return gettext("webhook {id}: {outcome}").format(
            id=self.webhook_id, outcome=self.get_outcome_display()
        )
