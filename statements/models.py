"""Bank statements: our own accounts, the files, their balances and lines, and what matches them.

A line is one movement of one of our accounts. It is stored once, in however many files it occurs.
"""

from datetime import date

from django.contrib.auth.models import User
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from ingest.models import OperatorAction, OperatorActionItem, Webhook
from ingest.number_keys import DIGEST_CHARS
from ledger.inn import KEY_CHARS_MAX

ACCOUNT_CHARS_MAX = 34  # of an IBAN
NAME_CHARS_MAX = 255
NUMBER_CHARS_MAX = 255
ERRORS_MAX = 100


class OwnAccount(models.Model):
    """A bank account of ours. Lines and webhooks before `since` or after `until` are not reconciled.

    Its row is the lock under which statements of the account are imported and matched.
    """

    number = models.CharField(_("account"), max_length=ACCOUNT_CHARS_MAX, unique=True)
    bank = models.CharField(_("bank"), max_length=NAME_CHARS_MAX, blank=True, default="")
    since = models.DateField(_("reconciled since"))
    until = models.DateField(_("reconciled until"), null=True, blank=True)

    class Meta:
        verbose_name = _("own account")
        verbose_name_plural = _("own accounts")

    def __str__(self) -> str:
        return self.number

    def is_active_on(self, day: date) -> bool:
        return self.since <= day and (self.until is None or day <= self.until)


class BankStatement(models.Model):
    """A file of a bank that was imported, proven or not. `body` is its bytes, compressed by zlib."""

    class Verdict(models.TextChoices):
        OK = "ok", _("proven")
        UNPROVEN = "unproven", _("unproven")
        PARTIAL = "partial", _("partly unreadable")

    sha256 = models.CharField(max_length=64, unique=True)
    name = models.CharField(_("file"), max_length=NAME_CHARS_MAX)
    body = models.BinaryField(_("body"))
    encoding = models.CharField(_("encoding"), max_length=16)
    verdict = models.CharField(_("verdict"), max_length=8, choices=Verdict.choices)
    warnings = models.JSONField(_("warnings"), default=list)
    # Of unreadable documents, at most ERRORS_MAX: code, key of the document, line from 1.
    errors = models.JSONField(_("errors"), default=list)
    unreadable = models.PositiveIntegerField(_("unreadable documents"), default=0)
    # When the bank wrote the file, or else when it was uploaded: the newer of two files is right.
    created_at = models.DateTimeField(_("written"))
    uploaded_at = models.DateTimeField(_("uploaded"), default=timezone.now)
    uploaded_by = models.ForeignKey(
        User, on_delete=models.PROTECT, null=True, related_name="+", verbose_name=_("uploaded by")
    )
    # An operator takes an unproven statement for complete, with a reason.
    accepted_by = models.ForeignKey(
        OperatorAction, on_delete=models.PROTECT, null=True, related_name="+", verbose_name=_("accepted by")
    )

    class Meta:
        verbose_name = _("bank statement")
        verbose_name_plural = _("bank statements")
        permissions = [("accept_statement", "Can accept unproven bank statements")]

    def __str__(self) -> str:
        return self.name


class RejectedStatement(models.Model):
    """A file that was refused, bounded in size and number (statements/rejecting.py)."""

    at = models.DateTimeField(_("uploaded"), default=timezone.now)
    name = models.CharField(_("file"), max_length=NAME_CHARS_MAX)
    reason = models.CharField(_("reason"), max_length=255)
    code = models.CharField(max_length=20, default="")  # of the reason, which pages translate
    line = models.PositiveIntegerField(_("line"), null=True)
    body = models.BinaryField(_("body"), help_text=_("the beginning of the file"))

    class Meta:
        verbose_name = _("rejected bank statement")
        verbose_name_plural = _("rejected bank statements")

    def __str__(self) -> str:
        return self.name


class StatementBalance(models.Model):
    """An account's balances and turnovers in one section of a statement, in kopecks of its currency."""

    class Proof(models.TextChoices):
        HOLDS = "holds", _("holds")
        FAILS = "fails", _("fails")
        UNPROVABLE = "unprovable", _("can't be proven")

    statement = models.ForeignKey(BankStatement, on_delete=models.PROTECT, related_name="balances")
    account = models.ForeignKey(OwnAccount, on_delete=models.PROTECT, related_name="balances")
    first_day = models.DateField(_("first day"), null=True)
    last_day = models.DateField(_("last day"), null=True)
    finished_day = models.DateField(null=True)  # the last day that was over when the file was written
    opening = models.BigIntegerField(_("opening balance"), null=True)
    credited = models.BigIntegerField(pgettext_lazy("money", "received"), null=True)
    debited = models.BigIntegerField(_("paid out"), null=True)
    closing = models.BigIntegerField(_("closing balance"), null=True)
    proof = models.CharField(_("proof"), max_length=10, choices=Proof.choices)  # of the account in the file

    class Meta:
        verbose_name = _("balance of a bank statement")
        verbose_name_plural = _("balances of bank statements")

    def __str__(self) -> str:
        return f"{self.account} {self.first_day} – {self.last_day}"


class Bucket(models.TextChoices):
    """What became of a line or of a webhook in the reconciliation. UNDECIDED: since the last matching."""

    UNDECIDED = "", _("not matched yet")
    MATCHED = "matched", _("matched")
    UNPOSTED = "unposted", _("not posted")
    MISSING_WEBHOOK = "missing_webhook", _("without a webhook")
    UNIDENTIFIED = "unidentified", _("payer not identified")
    AMOUNT_MISMATCH = "amount_mismatch", _("another amount")
    PAYER_MISMATCH = "payer_mismatch", _("another payer")
    DUPLICATE = "duplicate", _("duplicate payment")
    NOT_ON_STATEMENT = "not_on_statement", _("not on the bank statement")
    AWAITING_STATEMENT = "awaiting_statement", _("bank statement awaited")
    REVERSED_BY_BANK = "reversed_by_bank", _("reversed by the bank")
    SUGGESTED = "suggested", _("probably the same")
    EXCLUDED = "excluded", _("not to be credited")
    OUTSIDE = "outside", _("outside the reconciliation")
    # An operator took the difference for right: of a line and its webhook, or of a webhook without a line.
    KEPT = "kept", _("kept in spite of the difference")
    KEPT_WEBHOOK = "kept_webhook", _("kept without a line")


class StatementLine(models.Model):
    """A movement of one of our accounts. The columns from `account` to `raw` never change.

    `inn` is by which it is matched: the payer's INN, the account's suspense key if that is unusable, or NULL
    if the line is not to be credited. `credit_kopecks` is what it adds to the rubles that came in.
    `number_key` and `digits_key` are of its document number (ingest/number_keys.py).
    """

    class Side(models.TextChoices):
        CREDIT = "in", pgettext_lazy("money", "received")
        DEBIT = "out", _("paid out")

    account = models.ForeignKey(
        OwnAccount, on_delete=models.PROTECT, db_index=False, related_name="lines", verbose_name=_("account")
    )
    fingerprint = models.CharField(max_length=DIGEST_CHARS)
    ordinal = models.PositiveIntegerField()  # from 1, among equal lines of one file
    side = models.CharField(_("side"), max_length=3, choices=Side.choices)
    date = models.DateField(_("date"))
    booked_on = models.DateField(_("booked"))
    kopecks = models.BigIntegerField(_("amount, kopecks"))  # positive
    credit_kopecks = models.BigIntegerField()
    is_reversal = models.BooleanField(_("reversal"))
    number = models.CharField(_("document number"), max_length=NUMBER_CHARS_MAX)
    number_key = models.CharField(max_length=DIGEST_CHARS, null=True)  # noqa: DJ001 no number matches none
    digits_key = models.CharField(max_length=DIGEST_CHARS, null=True)  # noqa: DJ001
    inn = models.CharField(max_length=KEY_CHARS_MAX, null=True)  # noqa: DJ001
    not_creditable = models.CharField(max_length=20)  # a reason of the reader; empty if creditable
    payer_inn = models.CharField(_("payer INN"), max_length=64)
    payer_account = models.CharField(_("payer's account"), max_length=64)
    payee_inn = models.CharField(_("payee INN"), max_length=64)
    payee_account = models.CharField(_("payee's account"), max_length=64)
    purpose = models.TextField(_("purpose"))
    kind = models.CharField(_("kind of document"), max_length=255)
    uin = models.CharField(_("UIN"), max_length=255)
    raw = models.TextField(_("as in the file"))

    position = models.PositiveIntegerField()  # among the lines of its account and day; the smallest seen
    is_withdrawn = models.BooleanField(_("withdrawn by the bank"), default=False)
    reverses = models.OneToOneField(
        "self", on_delete=models.DO_NOTHING, db_constraint=False, null=True, related_name="reversal"
    )
    bucket = models.CharField(_("result"), max_length=18, choices=Bucket.choices, default="")

    class Meta:
        verbose_name = _("line of a bank statement")
        verbose_name_plural = _("lines of bank statements")
        permissions = [("settle_line", "Can settle lines of bank statements")]
        indexes = [
            models.Index(fields=["account", "booked_on"], name="line_day"),
            # Has all that is summed, and the order of pages of rows.
            models.Index(
                fields=["bucket", "booked_on", "id", "account", "credit_kopecks"], name="line_bucket"
            ),
            models.Index(fields=["bucket", "inn"], name="line_open"),
            models.Index(fields=["inn", "kopecks", "digits_key"], name="line_terms"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["account", "fingerprint", "ordinal"], name="line_unique"),
            models.CheckConstraint(condition=Q(kopecks__gt=0), name="line_amount_positive"),
        ]

    def __str__(self) -> str:
        return f"{self.number} {self.date}"


class LineSighting(models.Model):
    """A line in a statement, as its `position`th document, from 1."""

    line = models.ForeignKey(
        StatementLine, on_delete=models.PROTECT, db_index=False, related_name="sightings"
    )
    statement = models.ForeignKey(BankStatement, on_delete=models.PROTECT, related_name="sightings")
    position = models.PositiveIntegerField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["line", "statement"], name="sighting_unique")]

    def __str__(self) -> str:
        return f"{self.statement_id}: {self.position}"


class MatchKey(models.Model):
    """What a webhook notified and what of it is in the ledger now, in the terms of the matching.

    A copy in a table of its own, so that storing webhooks costs nothing more; statements/webhook_terms.py
    fills it. `inn` and `kopecks` are those of the posted payment, or else of the webhook. `day` is the
    document date in STATEMENT_TIME_ZONE.
    """

    class State(models.TextChoices):
        POSTED = "posted", _("posted")
        UNPOSTED = "unposted", _("received or failed")
        NONE = "none", _("reversed, dismissed or merged")

    webhook = models.OneToOneField(
        Webhook,
        on_delete=models.DO_NOTHING,
        db_constraint=False,  # its check would wait for a worker that has locked the webhook
        primary_key=True,
        related_name="match_key",
    )
    payment_id = models.BigIntegerField(null=True, db_index=True)  # the last one of its operation
    notified_inn = models.CharField(max_length=KEY_CHARS_MAX)
    inn = models.CharField(max_length=KEY_CHARS_MAX)
    kopecks = models.BigIntegerField()
    number_key = models.CharField(max_length=DIGEST_CHARS, null=True)  # noqa: DJ001 no number matches none
    digits_key = models.CharField(max_length=DIGEST_CHARS, null=True)  # noqa: DJ001
    day = models.DateField()
    state = models.CharField(max_length=8, choices=State.choices)
    bucket = models.CharField(max_length=18, choices=Bucket.choices, default="")

    class Meta:
        indexes = [
            models.Index(fields=["inn", "kopecks", "digits_key"], name="key_terms"),
            models.Index(fields=["digits_key", "day"], name="key_number"),
            models.Index(fields=["bucket", "day"], name="key_bucket"),
            models.Index(fields=["state"], name="key_state"),
        ]

    def __str__(self) -> str:
        return str(self.webhook_id)


class Match(models.Model):
    """A line and the webhook that notified it. `live` is True, or NULL once an operator undid it.

    Ranks 1 to 3 are found by statements/matching.py, which may find them again in another way; others are
    operators' and stay.
    """

    class Rank(models.IntegerChoices):
        POSTED = 0, _("posted from the bank statement")
        NUMBER = 1, _("number and day")
        DIGITS = 2, _("digits of the number and day")
        NEAR = 3, _("number, up to five days apart")
        CONFIRMED = 4, _("confirmed by an operator")
        KEPT = 5, _("kept in spite of the difference")

    AUTOMATIC = (Rank.NUMBER, Rank.DIGITS, Rank.NEAR)

    line = models.ForeignKey(StatementLine, on_delete=models.PROTECT, db_index=False, related_name="matches")
    webhook = models.ForeignKey(
        Webhook, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="matches"
    )
    rank = models.PositiveSmallIntegerField(_("rank"), choices=Rank.choices)
    action = models.ForeignKey(OperatorAction, on_delete=models.PROTECT, null=True, related_name="+")
    live = models.BooleanField(null=True, default=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["line", "live"], name="match_line_unique"),
            models.UniqueConstraint(fields=["webhook", "live"], name="match_webhook_unique"),
            models.CheckConstraint(condition=Q(live=True) | Q(live=None), name="match_live_or_null"),
        ]

    def __str__(self) -> str:
        return f"{self.line_id}: {self.webhook_id}"


class Proposal(models.Model):
    """A line and a webhook that may be the same payment: a mismatch, or suggested."""

    line = models.OneToOneField(StatementLine, on_delete=models.CASCADE, related_name="proposal")
    webhook = models.OneToOneField(
        Webhook, on_delete=models.DO_NOTHING, db_constraint=False, related_name="proposal"
    )
    bucket = models.CharField(max_length=18, choices=Bucket.choices)

    def __str__(self) -> str:
        return f"{self.line_id}: {self.webhook_id}"


class Decision(models.Model):
    """What an operator decided about a line or a webhook, for as long as the row exists.

    An excluded line is not posted; a separated one is matched with no webhook; a kept webhook needs no line.
    A line or webhook that agrees with another is matched all the same, unless it is separated.
    """

    class Kind(models.TextChoices):
        EXCLUDED = "excluded", _("excluded")
        SEPARATED = "separated", _("separated")
        KEPT = "kept", _("kept")

    line = models.OneToOneField(StatementLine, on_delete=models.PROTECT, null=True, related_name="decision")
    webhook = models.OneToOneField(
        Webhook, on_delete=models.DO_NOTHING, db_constraint=False, null=True, related_name="decision"
    )
    kind = models.CharField(_("decision"), max_length=9, choices=Kind.choices)
    action = models.ForeignKey(OperatorAction, on_delete=models.PROTECT, related_name="+")

    class Meta:
        verbose_name = _("decision")
        verbose_name_plural = _("decisions")

    def __str__(self) -> str:
        return self.kind


class NightlyReconciliation(models.Model):
    """What the scheduler found when it reconciled all days that were over, in kopecks.

    `unexplained` is what no bucket explains of ledger − bank, and is 0 unless this program is wrong.
    `differences` wait for operators; `kopecks` is their sum.
    """

    at = models.DateTimeField(_("when"), default=timezone.now)
    unexplained = models.BigIntegerField(_("unexplained"))
    differences = models.PositiveIntegerField(_("differences"))
    kopecks = models.BigIntegerField(_("amount, kopecks"))

    class Meta:
        verbose_name = _("nightly reconciliation")
        verbose_name_plural = _("nightly reconciliations")

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d}"


class DayTotal(models.Model):
    """What the lines of an account and a day in one bucket come to, for as long as it is right.

    statements/day_totals.py says what the sums are, and when the row exists. A day has rows of all its
    buckets, or none.
    """

    account = models.ForeignKey(OwnAccount, on_delete=models.PROTECT, db_index=False, related_name="+")
    day = models.DateField()
    bucket = models.CharField(max_length=18)
    lines = models.PositiveIntegerField()
    kopecks = models.BigIntegerField()
    ledger = models.BigIntegerField()
    received = models.BigIntegerField()
    paid = models.BigIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["account", "day", "bucket"], name="day_total_unique"),
        ]

    def __str__(self) -> str:
        return f"{self.account_id} {self.day} {self.bucket}"


class ActionItem(models.Model):
    """One line, webhook or statement of an operator action; its outcome is written once and never changed."""

    class Refusal(models.TextChoices):
        """Why an item was refused."""

        NONE = "", _("not refused")
        CHANGED = "changed", _("it is in another state by now")
        UNPROVEN = "unproven", _("no proven bank statement has the line")
        TOO_EARLY = "too_early", _("the bank may still notify it")
        NOTIFIED = "notified", _("the bank has notified it")
        EXISTS = "exists", _("it was posted from the bank statement before")
        LEDGER = "ledger", _("the ledger does not allow it")

    Outcome = OperatorActionItem.Outcome

    action = models.ForeignKey(
        OperatorAction, on_delete=models.PROTECT, db_index=False, related_name="statement_items"
    )
    line = models.ForeignKey(StatementLine, on_delete=models.PROTECT, null=True, related_name="action_items")
    webhook = models.ForeignKey(
        Webhook,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        null=True,
        related_name="statement_action_items",
    )
    statement = models.ForeignKey(
        BankStatement, on_delete=models.PROTECT, null=True, related_name="action_items"
    )
    outcome = models.CharField(
        _("outcome"), max_length=9, choices=Outcome.choices, blank=True, default=Outcome.PENDING
    )
    refusal = models.CharField(
        _("refused because"), max_length=9, choices=Refusal.choices, blank=True, default=Refusal.NONE
    )

    class Meta:
        verbose_name = _("item of an operator action")
        verbose_name_plural = _("items of operator actions")
        indexes = [models.Index(fields=["outcome", "action"], name="statement_item_outcome")]
        constraints = [
            models.UniqueConstraint(fields=["action", "line"], name="statement_item_line"),
            models.UniqueConstraint(fields=["action", "webhook"], name="statement_item_webhook"),
        ]

    def __str__(self) -> str:
        return f"{self.action_id}: {self.outcome}"
