from typing import Any

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

from core.groups import grant, view
from ledger import triggers
from statements.append_only import APPEND_ONLY_TABLES

VIEWED = view(
    "statements",
    *("ownaccount", "bankstatement", "rejectedstatement", "statementbalance", "statementline", "match"),
    *("decision", "actionitem"),
)
OPERATED = [
    ("statements", "statementline", "settle_line", "Can settle lines of bank statements"),
    ("statements", "bankstatement", "accept_statement", "Can accept unproven bank statements"),
    ("statements", "bankstatement", "add_bankstatement", "Can add bank statement"),
    ("statements", "ownaccount", "add_ownaccount", "Can add own account"),
    ("statements", "ownaccount", "change_ownaccount", "Can change own account"),
]


def grant_to_groups(apps: Any, editor: Any) -> None:
    grant(apps, {"Operators": [*VIEWED, *OPERATED], "Auditors": VIEWED})


class Migration(migrations.Migration):
    # MySQL ends a transaction at each CREATE TRIGGER.
    atomic = False

    initial = True

    dependencies = [
        ("ingest", "0001_initial"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="OwnAccount",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("number", models.CharField(max_length=34, unique=True, verbose_name="account")),
                ("bank", models.CharField(blank=True, default="", max_length=255, verbose_name="bank")),
                ("since", models.DateField(verbose_name="reconciled since")),
                ("until", models.DateField(blank=True, null=True, verbose_name="reconciled until")),
            ],
            options={
                "verbose_name": "own account",
                "verbose_name_plural": "own accounts",
            },
        ),
        migrations.CreateModel(
            name="RejectedStatement",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("at", models.DateTimeField(default=django.utils.timezone.now, verbose_name="uploaded")),
                ("name", models.CharField(max_length=255, verbose_name="file")),
                ("reason", models.CharField(max_length=255, verbose_name="reason")),
                ("code", models.CharField(default="", max_length=20)),
                ("line", models.PositiveIntegerField(null=True, verbose_name="line")),
                ("body", models.BinaryField(help_text="the beginning of the file", verbose_name="body")),
            ],
            options={
                "verbose_name": "rejected bank statement",
                "verbose_name_plural": "rejected bank statements",
            },
        ),
        migrations.CreateModel(
            name="BankStatement",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("sha256", models.CharField(max_length=64, unique=True)),
                ("name", models.CharField(max_length=255, verbose_name="file")),
                ("body", models.BinaryField(verbose_name="body")),
                ("encoding", models.CharField(max_length=16, verbose_name="encoding")),
                (
                    "verdict",
                    models.CharField(
                        choices=[
                            ("ok", "proven"),
                            ("unproven", "unproven"),
                            ("partial", "partly unreadable"),
                        ],
                        max_length=8,
                        verbose_name="verdict",
                    ),
                ),
                ("warnings", models.JSONField(default=list, verbose_name="warnings")),
                ("errors", models.JSONField(default=list, verbose_name="errors")),
                ("unreadable", models.PositiveIntegerField(default=0, verbose_name="unreadable documents")),
                ("created_at", models.DateTimeField(verbose_name="written")),
                (
                    "uploaded_at",
                    models.DateTimeField(default=django.utils.timezone.now, verbose_name="uploaded"),
                ),
                (
                    "accepted_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="ingest.operatoraction",
                        verbose_name="accepted by",
                    ),
                ),
                (
                    "uploaded_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="uploaded by",
                    ),
                ),
            ],
            options={
                "verbose_name": "bank statement",
                "verbose_name_plural": "bank statements",
                "permissions": [("accept_statement", "Can accept unproven bank statements")],
            },
        ),
        migrations.CreateModel(
            name="MatchKey",
            fields=[
                (
                    "webhook",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        primary_key=True,
                        related_name="match_key",
                        serialize=False,
                        to="ingest.webhook",
                    ),
                ),
                ("payment_id", models.BigIntegerField(db_index=True, null=True)),
                ("notified_inn", models.CharField(max_length=21)),
                ("inn", models.CharField(max_length=21)),
                ("kopecks", models.BigIntegerField()),
                ("number_key", models.CharField(max_length=32, null=True)),
                ("digits_key", models.CharField(max_length=32, null=True)),
                ("day", models.DateField()),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("posted", "posted"),
                            ("unposted", "received or failed"),
                            ("none", "reversed, dismissed or merged"),
                        ],
                        max_length=8,
                    ),
                ),
                (
                    "bucket",
                    models.CharField(
                        choices=[
                            ("", "not matched yet"),
                            ("matched", "matched"),
                            ("unposted", "not posted"),
                            ("missing_webhook", "without a webhook"),
                            ("unidentified", "payer not identified"),
                            ("amount_mismatch", "another amount"),
                            ("payer_mismatch", "another payer"),
                            ("duplicate", "duplicate payment"),
                            ("not_on_statement", "not on the bank statement"),
                            ("awaiting_statement", "bank statement awaited"),
                            ("reversed_by_bank", "reversed by the bank"),
                            ("suggested", "probably the same"),
                            ("excluded", "not to be credited"),
                            ("outside", "outside the reconciliation"),
                            ("kept", "kept in spite of the difference"),
                            ("kept_webhook", "kept without a line"),
                        ],
                        default="",
                        max_length=18,
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(fields=["inn", "kopecks", "digits_key"], name="key_terms"),
                    models.Index(fields=["digits_key", "day"], name="key_number"),
                    models.Index(fields=["bucket", "day"], name="key_bucket"),
                    models.Index(fields=["state"], name="key_state"),
                ],
            },
        ),
        migrations.CreateModel(
            name="StatementBalance",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("first_day", models.DateField(null=True, verbose_name="first day")),
                ("last_day", models.DateField(null=True, verbose_name="last day")),
                ("finished_day", models.DateField(null=True)),
                ("opening", models.BigIntegerField(null=True, verbose_name="opening balance")),
                ("credited", models.BigIntegerField(null=True, verbose_name="received")),
                ("debited", models.BigIntegerField(null=True, verbose_name="paid out")),
                ("closing", models.BigIntegerField(null=True, verbose_name="closing balance")),
                (
                    "proof",
                    models.CharField(
                        choices=[("holds", "holds"), ("fails", "fails"), ("unprovable", "can't be proven")],
                        max_length=10,
                        verbose_name="proof",
                    ),
                ),
                (
                    "account",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="balances",
                        to="statements.ownaccount",
                    ),
                ),
                (
                    "statement",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="balances",
                        to="statements.bankstatement",
                    ),
                ),
            ],
            options={
                "verbose_name": "balance of a bank statement",
                "verbose_name_plural": "balances of bank statements",
            },
        ),
        migrations.CreateModel(
            name="StatementLine",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("fingerprint", models.CharField(max_length=32)),
                ("ordinal", models.PositiveIntegerField()),
                (
                    "side",
                    models.CharField(
                        choices=[("in", "received"), ("out", "paid out")], max_length=3, verbose_name="side"
                    ),
                ),
                ("date", models.DateField(verbose_name="date")),
                ("booked_on", models.DateField(verbose_name="booked")),
                ("kopecks", models.BigIntegerField(verbose_name="amount, kopecks")),
                ("credit_kopecks", models.BigIntegerField()),
                ("is_reversal", models.BooleanField(verbose_name="reversal")),
                ("number", models.CharField(max_length=255, verbose_name="document number")),
                ("number_key", models.CharField(max_length=32, null=True)),
                ("digits_key", models.CharField(max_length=32, null=True)),
                ("inn", models.CharField(max_length=21, null=True)),
                ("not_creditable", models.CharField(max_length=20)),
                ("payer_inn", models.CharField(max_length=64, verbose_name="payer INN")),
                ("payer_account", models.CharField(max_length=64, verbose_name="payer's account")),
                ("payee_inn", models.CharField(max_length=64, verbose_name="payee INN")),
                ("payee_account", models.CharField(max_length=64, verbose_name="payee's account")),
                ("purpose", models.TextField(verbose_name="purpose")),
                ("kind", models.CharField(max_length=255, verbose_name="kind of document")),
                ("uin", models.CharField(max_length=255, verbose_name="UIN")),
                ("raw", models.TextField(verbose_name="as in the file")),
                ("position", models.PositiveIntegerField()),
                ("is_withdrawn", models.BooleanField(default=False, verbose_name="withdrawn by the bank")),
                (
                    "bucket",
                    models.CharField(
                        choices=[
                            ("", "not matched yet"),
                            ("matched", "matched"),
                            ("unposted", "not posted"),
                            ("missing_webhook", "without a webhook"),
                            ("unidentified", "payer not identified"),
                            ("amount_mismatch", "another amount"),
                            ("payer_mismatch", "another payer"),
                            ("duplicate", "duplicate payment"),
                            ("not_on_statement", "not on the bank statement"),
                            ("awaiting_statement", "bank statement awaited"),
                            ("reversed_by_bank", "reversed by the bank"),
                            ("suggested", "probably the same"),
                            ("excluded", "not to be credited"),
                            ("outside", "outside the reconciliation"),
                            ("kept", "kept in spite of the difference"),
                            ("kept_webhook", "kept without a line"),
                        ],
                        default="",
                        max_length=18,
                        verbose_name="result",
                    ),
                ),
                (
                    "account",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="lines",
                        to="statements.ownaccount",
                        verbose_name="account",
                    ),
                ),
                (
                    "reverses",
                    models.OneToOneField(
                        db_constraint=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="reversal",
                        to="statements.statementline",
                    ),
                ),
            ],
            options={
                "verbose_name": "line of a bank statement",
                "verbose_name_plural": "lines of bank statements",
                "permissions": [("settle_line", "Can settle lines of bank statements")],
            },
        ),
        migrations.CreateModel(
            name="Proposal",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "bucket",
                    models.CharField(
                        choices=[
                            ("", "not matched yet"),
                            ("matched", "matched"),
                            ("unposted", "not posted"),
                            ("missing_webhook", "without a webhook"),
                            ("unidentified", "payer not identified"),
                            ("amount_mismatch", "another amount"),
                            ("payer_mismatch", "another payer"),
                            ("duplicate", "duplicate payment"),
                            ("not_on_statement", "not on the bank statement"),
                            ("awaiting_statement", "bank statement awaited"),
                            ("reversed_by_bank", "reversed by the bank"),
                            ("suggested", "probably the same"),
                            ("excluded", "not to be credited"),
                            ("outside", "outside the reconciliation"),
                            ("kept", "kept in spite of the difference"),
                            ("kept_webhook", "kept without a line"),
                        ],
                        max_length=18,
                    ),
                ),
                (
                    "webhook",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="proposal",
                        to="ingest.webhook",
                    ),
                ),
                (
                    "line",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="proposal",
                        to="statements.statementline",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Match",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "rank",
                    models.PositiveSmallIntegerField(
                        choices=[
                            (0, "posted from the bank statement"),
                            (1, "number and day"),
                            (2, "digits of the number and day"),
                            (3, "number, up to five days apart"),
                            (4, "confirmed by an operator"),
                            (5, "kept in spite of the difference"),
                        ],
                        verbose_name="rank",
                    ),
                ),
                ("live", models.BooleanField(default=True, null=True)),
                (
                    "action",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="ingest.operatoraction",
                    ),
                ),
                (
                    "webhook",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="matches",
                        to="ingest.webhook",
                    ),
                ),
                (
                    "line",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="matches",
                        to="statements.statementline",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="LineSighting",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("position", models.PositiveIntegerField()),
                (
                    "statement",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="sightings",
                        to="statements.bankstatement",
                    ),
                ),
                (
                    "line",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="sightings",
                        to="statements.statementline",
                    ),
                ),
            ],
        ),
        migrations.AddIndex(
            model_name="statementline",
            index=models.Index(fields=["account", "booked_on"], name="line_day"),
        ),
        migrations.AddIndex(
            model_name="statementline",
            index=models.Index(
                fields=["bucket", "booked_on", "id", "account", "credit_kopecks"], name="line_bucket"
            ),
        ),
        migrations.AddIndex(
            model_name="statementline",
            index=models.Index(fields=["bucket", "inn"], name="line_open"),
        ),
        migrations.AddIndex(
            model_name="statementline",
            index=models.Index(fields=["inn", "kopecks", "digits_key"], name="line_terms"),
        ),
        migrations.AddConstraint(
            model_name="statementline",
            constraint=models.UniqueConstraint(
                fields=("account", "fingerprint", "ordinal"), name="line_unique"
            ),
        ),
        migrations.AddConstraint(
            model_name="statementline",
            constraint=models.CheckConstraint(
                condition=models.Q(("kopecks__gt", 0)), name="line_amount_positive"
            ),
        ),
        migrations.AddConstraint(
            model_name="match",
            constraint=models.UniqueConstraint(fields=("line", "live"), name="match_line_unique"),
        ),
        migrations.AddConstraint(
            model_name="match",
            constraint=models.UniqueConstraint(fields=("webhook", "live"), name="match_webhook_unique"),
        ),
        migrations.AddConstraint(
            model_name="match",
            constraint=models.CheckConstraint(
                condition=models.Q(("live", True), ("live", None), _connector="OR"), name="match_live_or_null"
            ),
        ),
        migrations.AddConstraint(
            model_name="linesighting",
            constraint=models.UniqueConstraint(fields=("line", "statement"), name="sighting_unique"),
        ),
        migrations.CreateModel(
            name="Decision",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "kind",
                    models.CharField(
                        choices=[("excluded", "excluded"), ("separated", "separated"), ("kept", "kept")],
                        max_length=9,
                        verbose_name="decision",
                    ),
                ),
                (
                    "action",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="ingest.operatoraction",
                    ),
                ),
                (
                    "line",
                    models.OneToOneField(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="decision",
                        to="statements.statementline",
                    ),
                ),
                (
                    "webhook",
                    models.OneToOneField(
                        db_constraint=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="decision",
                        to="ingest.webhook",
                    ),
                ),
            ],
            options={
                "verbose_name": "decision",
                "verbose_name_plural": "decisions",
            },
        ),
        migrations.CreateModel(
            name="NightlyReconciliation",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("at", models.DateTimeField(default=django.utils.timezone.now, verbose_name="when")),
                ("unexplained", models.BigIntegerField(verbose_name="unexplained")),
                ("differences", models.PositiveIntegerField(verbose_name="differences")),
                ("kopecks", models.BigIntegerField(verbose_name="amount, kopecks")),
            ],
            options={
                "verbose_name": "nightly reconciliation",
                "verbose_name_plural": "nightly reconciliations",
            },
        ),
        migrations.CreateModel(
            name="DayTotal",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("day", models.DateField()),
                ("bucket", models.CharField(max_length=18)),
                ("lines", models.PositiveIntegerField()),
                ("kopecks", models.BigIntegerField()),
                ("ledger", models.BigIntegerField()),
                ("received", models.BigIntegerField()),
                ("paid", models.BigIntegerField()),
                (
                    "account",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="statements.ownaccount",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("account", "day", "bucket"), name="day_total_unique")
                ],
            },
        ),
        migrations.CreateModel(
            name="ActionItem",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "outcome",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("", "pending"),
                            ("done", "done"),
                            ("applied", "already applied"),
                            ("received", "already queued"),
                            ("failed", "failed again meanwhile"),
                            ("dismissed", "already dismissed"),
                            ("resolved", "without an open conflict"),
                            ("refused", "no longer possible"),
                            ("decided", "already decided"),
                            ("held", "held as a suspected duplicate"),
                            ("merged", "merged into a payment from a bank statement"),
                            ("unknown", "unknown"),
                        ],
                        default="",
                        max_length=9,
                        verbose_name="outcome",
                    ),
                ),
                (
                    "refusal",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("", "not refused"),
                            ("changed", "it is in another state by now"),
                            ("unproven", "no proven bank statement has the line"),
                            ("too_early", "the bank may still notify it"),
                            ("notified", "the bank has notified it"),
                            ("exists", "it was posted from the bank statement before"),
                            ("ledger", "the ledger does not allow it"),
                        ],
                        default="",
                        max_length=9,
                        verbose_name="refused because",
                    ),
                ),
                (
                    "action",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="statement_items",
                        to="ingest.operatoraction",
                    ),
                ),
                (
                    "line",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="action_items",
                        to="statements.statementline",
                    ),
                ),
                (
                    "statement",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="action_items",
                        to="statements.bankstatement",
                    ),
                ),
                (
                    "webhook",
                    models.ForeignKey(
                        db_constraint=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="statement_action_items",
                        to="ingest.webhook",
                    ),
                ),
            ],
            options={
                "verbose_name": "item of an operator action",
                "verbose_name_plural": "items of operator actions",
                "indexes": [models.Index(fields=["outcome", "action"], name="statement_item_outcome")],
                "constraints": [
                    models.UniqueConstraint(fields=("action", "line"), name="statement_item_line"),
                    models.UniqueConstraint(fields=("action", "webhook"), name="statement_item_webhook"),
                ],
            },
        ),
        migrations.RunPython(
            lambda apps, editor: triggers.create(editor.connection, APPEND_ONLY_TABLES),
            lambda apps, editor: triggers.drop(editor.connection, APPEND_ONLY_TABLES),
        ),
        migrations.RunPython(grant_to_groups, migrations.RunPython.noop),
    ]
