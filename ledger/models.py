"""The ledger. Rows of Payment and BalanceLog are written once, by ledger/posting.py, and never changed:
triggers refuse it (ledger/triggers.py)."""

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from ledger.inn import KEY_CHARS_MAX, SUSPENSE_PREFIX, is_checksum_valid
from ledger.money import BALANCE_KOPECKS_MAX
from ledger.operation_id import OperationIdField
from ledger.terms import PaymentTerms


class Organization(models.Model):
    """A payee, identified by its INN, or a suspense account (ledger/inn.py).

    Its row is the lock under which its log grows.
    """

    class Kind(models.TextChoices):
        ORGANIZATION = "organization", _("organization")
        SUSPENSE = "suspense", _("suspense account")

    kind = models.CharField(
        _("kind"), max_length=12, choices=Kind, default=Kind.ORGANIZATION, db_default=Kind.ORGANIZATION
    )
    inn = models.CharField(_("INN"), max_length=KEY_CHARS_MAX, unique=True)
    balance_kopecks = models.BigIntegerField(_("balance, kopecks"), default=0)
    last_seq = models.BigIntegerField(_("last entry"), default=0)
    opened_at = models.DateTimeField(_("opened"))

    class Meta:
        verbose_name = _("organization")
        verbose_name_plural = _("organizations")
        constraints = [
            models.CheckConstraint(condition=Q(balance_kopecks__gte=0), name="balance_not_negative"),
            # For SQLite, which converts a sum beyond its integers to a float; other databases refuse it.
            models.CheckConstraint(
                condition=Q(balance_kopecks__lte=BALANCE_KOPECKS_MAX), name="balance_not_overflowing"
            ),
            models.CheckConstraint(
                condition=Q(~Q(inn__startswith=SUSPENSE_PREFIX), kind="organization")
                | Q(kind="suspense", inn__startswith=SUSPENSE_PREFIX),
                name="organization_kind",
            ),
        ]
        indexes = [
            models.Index(fields=["kind"], name="organization_kind_index")
        ]  # finds the suspense accounts

    def __str__(self) -> str:
        return self.inn

    @property
    def inn_checksum_valid(self) -> bool:
        return self.kind == self.Kind.ORGANIZATION and is_checksum_valid(self.inn)


class Payment(models.Model):
    """A posted operation: a payment that the bank reported, or the reversal that takes one back in whole."""

    class Kind(models.TextChoices):
        PAYMENT = "payment", _("payment")
        REVERSAL = "reversal", _("reversal")

    # Both have a default in the database, so that posting a payment does not name them.
    kind = models.CharField(
        _("kind"), max_length=8, choices=Kind, default=Kind.PAYMENT, db_default=Kind.PAYMENT
    )
    reverses = models.OneToOneField(
        "self",
        on_delete=models.PROTECT,
        null=True,
        related_name="reversal",
        verbose_name=_("reversed payment"),
    )
    operation_id = OperationIdField(_("operation id"), unique=True)
    # No index of its own: the one below begins with it.
    organization = models.ForeignKey(
        Organization,
        on_delete=models.PROTECT,
        related_name="payments",
        db_index=False,
        verbose_name=_("organization"),
    )
    amount_kopecks = models.BigIntegerField(_("amount, kopecks"))
    document_number = models.CharField(_("document number"), max_length=255)
    document_date = models.DateTimeField(_("document date"))
    created_at = models.DateTimeField(_("posted"))

    class Meta:
        verbose_name = _("payment")
        verbose_name_plural = _("payments")
        constraints = [
            models.CheckConstraint(condition=Q(amount_kopecks__gt=0), name="payment_positive"),
            models.CheckConstraint(
                condition=Q(kind="payment", reverses__isnull=True)
                | Q(kind="reversal", reverses__isnull=False),
                name="payment_kind",
            ),
        ]
        # Of one organization, the payments in posting order, and then the reversals.
        indexes = [models.Index(fields=["organization", "reverses"], name="payment_of_organization")]

    def __str__(self) -> str:
        return str(self.operation_id)

    @property
    def terms(self) -> PaymentTerms:
        return PaymentTerms(
            operation_id=self.operation_id,
            inn=self.organization.inn,
            amount_kopecks=self.amount_kopecks,
            document_number=self.document_number,
            document_date=self.document_date,
        )


class UnassignedManager(models.Manager["UnassignedPayment"]):
    def get_queryset(self) -> "models.QuerySet[UnassignedPayment]":
        suspense = Organization.Kind.SUSPENSE
        payments = super().get_queryset().filter(kind=Payment.Kind.PAYMENT, reversal__isnull=True)
        return payments.filter(organization__kind=suspense)


class UnassignedPayment(Payment):
    """A payment that is in a suspense account still, for its page in the admin."""

    objects: ClassVar[models.Manager["UnassignedPayment"]] = UnassignedManager()

    class Meta:
        proxy = True
        verbose_name = _("unassigned payment")
        verbose_name_plural = _("unassigned payments")


class Replacement(models.Model):
    """The payment that was posted in place of a reversed one: other terms, or the same ones again."""

    replaced = models.OneToOneField(
        Payment, on_delete=models.PROTECT, related_name="replaced_by", verbose_name=_("replaced payment")
    )
    payment = models.OneToOneField(
        Payment, on_delete=models.PROTECT, related_name="replaces", verbose_name=_("payment")
    )

    class Meta:
        verbose_name = _("replacement")
        verbose_name_plural = _("replacements")

    def __str__(self) -> str:
        return gettext("replacement {id}").format(id=self.pk)


class BalanceLog(models.Model):
    """One entry of an organization's log: the amount, negative for a reversal, and the balance right after.

    `seq` runs 1..n for each organization, without a gap.
    """

    # No index of its own: the unique key begins with it.
    organization = models.ForeignKey(
        Organization,
        on_delete=models.PROTECT,
        related_name="log",
        db_index=False,
        verbose_name=_("organization"),
    )
    seq = models.BigIntegerField(_("No."))
    payment = models.OneToOneField(
        Payment, on_delete=models.PROTECT, related_name="log_entry", verbose_name=_("payment")
    )
    amount_kopecks = models.BigIntegerField(_("amount, kopecks"))
    balance_after_kopecks = models.BigIntegerField(_("balance after, kopecks"))
    created_at = models.DateTimeField(_("posted"))

    class Meta:
        verbose_name = _("balance log entry")
        verbose_name_plural = _("balance log entries")
        constraints = [
            models.UniqueConstraint(fields=["organization", "seq"], name="unique_seq_per_organization"),
        ]

    def __str__(self) -> str:
        return gettext("entry {seq} of organization {id}").format(seq=self.seq, id=self.organization_id)
