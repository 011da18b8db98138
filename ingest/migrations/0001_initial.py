from typing import Any

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

import ledger.operation_id
from core.groups import grant, view
from ingest.append_only import APPEND_ONLY_TABLES
from ledger import triggers

VIEWED = [
    *view(
        "ingest",
        *("webhook", "rejecteddelivery", "duplicatedelivery", "conflictingdelivery", "ignoreddelivery"),
        *("unrecognizeddelivery", "ledgerverification", "operatoraction", "operatoractionitem"),
        *("operationversion", "suspectedduplicate"),
    ),
    *view("ledger", "organization", "payment", "balancelog", "unassignedpayment"),
    *view("django_celery_results", "taskresult"),
]
OPERATED = [
    ("ingest", "webhook", "replay_webhook", "Can replay failed webhooks"),
    ("ingest", "webhook", "dismiss_webhook", "Can dismiss failed webhooks"),
    ("ingest", "webhook", "resolve_conflict", "Can resolve conflicts"),
    ("ingest", "webhook", "correct_payment", "Can correct posted payments"),
    ("ingest", "webhook", "decide_duplicate", "Can decide suspected duplicates"),
    ("ingest", "unrecognizeddelivery", "process_unrecognized", "Can process unrecognized deliveries again"),
    ("ingest", "unrecognizeddelivery", "dismiss_unrecognized", "Can dismiss unrecognized deliveries"),
]


def create_groups(apps: Any, editor: Any) -> None:
    grant(apps, {"Operators": [*VIEWED, *OPERATED], "Auditors": VIEWED})


class Migration(migrations.Migration):
    # MySQL ends a transaction at each CREATE TRIGGER.
    atomic = False

    initial = True

    dependencies = [
        ("ledger", "0001_initial"),
        ("contenttypes", "0002_remove_content_type_name"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("django_celery_results", "0014_alter_taskresult_status"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="IgnoredDelivery",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "received_at",
                    models.DateTimeField(
                        db_index=True, default=django.utils.timezone.now, verbose_name="received"
                    ),
                ),
                (
                    "source",
                    models.CharField(
                        db_default="bank", db_index=True, default="bank", max_length=16, verbose_name="source"
                    ),
                ),
                (
                    "client_ip",
                    models.CharField(
                        blank=True, db_default="", default="", max_length=39, verbose_name="client IP"
                    ),
                ),
                ("reason", models.CharField(max_length=255, verbose_name="reason")),
                ("body", models.BinaryField(help_text="the bytes as received", verbose_name="body")),
            ],
            options={
                "verbose_name": "ignored delivery",
                "verbose_name_plural": "ignored deliveries",
            },
        ),
        migrations.CreateModel(
            name="LedgerVerification",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "ended_at",
                    models.DateTimeField(default=django.utils.timezone.now, verbose_name="finished"),
                ),
                ("duration", models.DurationField(verbose_name="duration")),
                ("rows_scanned", models.BigIntegerField(verbose_name="rows scanned")),
                (
                    "drift",
                    models.TextField(
                        blank=True, default="", help_text="empty: all is right", verbose_name="drift"
                    ),
                ),
                (
                    "drifts_found",
                    models.PositiveIntegerField(db_default=0, default=0, verbose_name="drifts found"),
                ),
                (
                    "is_full",
                    models.BooleanField(db_default=True, default=True, verbose_name="full"),
                ),
                ("payments_to", models.BigIntegerField(db_default=0, default=0)),
                ("entries_to", models.BigIntegerField(db_default=0, default=0)),
                ("webhooks_to", models.BigIntegerField(db_default=0, default=0)),
            ],
            options={
                "verbose_name": "verification",
                "verbose_name_plural": "verifications",
            },
        ),
        migrations.CreateModel(
            name="Misconfiguration",
            fields=[
                ("setting", models.CharField(max_length=16, primary_key=True, serialize=False)),
                ("detail", models.CharField(max_length=253)),
                ("seen_at", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="OperationAlias",
            fields=[
                ("alias", ledger.operation_id.OperationIdField(primary_key=True, serialize=False)),
                ("bank_reference", models.CharField(help_text="the bank's id as received", max_length=64)),
                ("operation_id", ledger.operation_id.OperationIdField(db_index=True)),
            ],
        ),
        migrations.CreateModel(
            name="RejectedDelivery",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "received_at",
                    models.DateTimeField(
                        db_index=True, default=django.utils.timezone.now, verbose_name="received"
                    ),
                ),
                (
                    "source",
                    models.CharField(
                        db_default="bank", db_index=True, default="bank", max_length=16, verbose_name="source"
                    ),
                ),
                (
                    "client_ip",
                    models.CharField(
                        blank=True, db_default="", default="", max_length=39, verbose_name="client IP"
                    ),
                ),
                ("reason", models.CharField(max_length=255, verbose_name="reason")),
                ("body", models.BinaryField(help_text="the bytes as received", verbose_name="body")),
            ],
            options={
                "verbose_name": "rejected delivery",
                "verbose_name_plural": "rejected deliveries",
            },
        ),
        migrations.CreateModel(
            name="OperatorAction",
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
                        choices=[
                            ("replay", "replay"),
                            ("dismiss", "dismissal"),
                            ("resolve", "resolution of conflicts"),
                            ("process", "processing of unrecognized deliveries"),
                            ("discard", "dismissal of unrecognized deliveries"),
                            ("reverse", "reversal of payments"),
                            ("replace", "replacement of payments by their conflicting deliveries"),
                            ("assign", "assignment from suspense"),
                            ("unassign", "return to suspense"),
                            ("restore", "restoration of reversed payments"),
                            ("clear", "clearing of suspected duplicates"),
                            ("confirm", "confirmation of duplicates"),
                            ("post", "posting from bank statements"),
                            ("match", "confirmation of matches"),
                            ("unmatch", "undoing of matches"),
                            ("take_back", "reversal by bank statements"),
                            ("by_line", "replacement by bank statements"),
                            ("exclude", "exclusion of bank statement lines"),
                            ("keep", "keeping of differences"),
                            ("reopen", "reopening of excluded and kept ones"),
                            ("accept", "acceptance of bank statements"),
                        ],
                        max_length=9,
                        verbose_name="kind",
                    ),
                ),
                ("at", models.DateTimeField(default=django.utils.timezone.now, verbose_name="when")),
                ("by_name", models.CharField(max_length=255, verbose_name="by")),
                ("reason", models.CharField(max_length=500, verbose_name="reason")),
                (
                    "inn",
                    models.CharField(
                        blank=True,
                        db_default="",
                        default="",
                        max_length=21,
                        verbose_name="assigned to INN",
                    ),
                ),
                (
                    "by",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="user",
                    ),
                ),
            ],
            options={
                "verbose_name": "operator action",
                "verbose_name_plural": "operator actions",
            },
        ),
        migrations.CreateModel(
            name="Webhook",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "operation_id",
                    ledger.operation_id.OperationIdField(unique=True, verbose_name="operation id"),
                ),
                ("payer_inn", models.CharField(max_length=21, verbose_name="payer INN")),
                ("amount_kopecks", models.BigIntegerField(verbose_name="amount, kopecks")),
                ("document_number", models.CharField(max_length=255, verbose_name="document number")),
                ("document_date", models.DateTimeField(verbose_name="document date")),
                ("body", models.BinaryField(help_text="the bytes as received", verbose_name="body")),
                (
                    "received_at",
                    models.DateTimeField(default=django.utils.timezone.now, verbose_name="received"),
                ),
                (
                    "source",
                    models.CharField(db_default="bank", default="bank", max_length=16, verbose_name="source"),
                ),
                (
                    "client_ip",
                    models.CharField(
                        blank=True, db_default="", default="", max_length=39, verbose_name="client IP"
                    ),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("received", "received"),
                            ("applied", "applied"),
                            ("failed", "failed"),
                            ("dismissed", "dismissed"),
                            ("held", "held"),
                            ("merged", "merged"),
                        ],
                        default="received",
                        max_length=9,
                        verbose_name="status",
                    ),
                ),
                ("applied_at", models.DateTimeField(null=True, verbose_name="applied")),
                ("next_attempt_at", models.DateTimeField(null=True, verbose_name="next attempt")),
                ("attempts", models.PositiveSmallIntegerField(default=0, verbose_name="attempts")),
                ("last_error", models.TextField(blank=True, default="", verbose_name="last error")),
                (
                    "error_fingerprint",
                    models.CharField(
                        blank=True,
                        db_default="",
                        default="",
                        max_length=120,
                        verbose_name="cause of the failure",
                    ),
                ),
                (
                    "queued_inn",
                    models.GeneratedField(
                        db_persist=False,
                        expression=models.Case(
                            models.When(next_attempt_at=None, status="received", then=models.F("payer_inn"))
                        ),
                        output_field=models.CharField(max_length=21, null=True),
                    ),
                ),
                ("payment_fingerprint", models.BigIntegerField(null=True)),
            ],
            options={
                "verbose_name": "webhook",
                "verbose_name_plural": "webhooks",
                "permissions": [
                    ("replay_webhook", "Can replay failed webhooks"),
                    ("dismiss_webhook", "Can dismiss failed webhooks"),
                    ("resolve_conflict", "Can resolve conflicts"),
                    ("correct_payment", "Can correct posted payments"),
                    ("decide_duplicate", "Can decide suspected duplicates"),
                ],
                "indexes": [
                    models.Index(fields=["status", "next_attempt_at"], name="webhook_due"),
                    models.Index(fields=["queued_inn", "id"], name="webhook_queued"),
                    models.Index(fields=["payment_fingerprint"], name="webhook_payment_fingerprint"),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("amount_kopecks__gt", 0)), name="webhook_amount_positive"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="DuplicateDelivery",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "received_at",
                    models.DateTimeField(
                        db_index=True, default=django.utils.timezone.now, verbose_name="received"
                    ),
                ),
                (
                    "source",
                    models.CharField(
                        db_default="bank", db_index=True, default="bank", max_length=16, verbose_name="source"
                    ),
                ),
                (
                    "client_ip",
                    models.CharField(
                        blank=True, db_default="", default="", max_length=39, verbose_name="client IP"
                    ),
                ),
                (
                    "webhook",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="duplicate_deliveries",
                        to="ingest.webhook",
                        verbose_name="webhook",
                    ),
                ),
            ],
            options={
                "verbose_name": "duplicate delivery",
                "verbose_name_plural": "duplicate deliveries",
            },
        ),
        migrations.CreateModel(
            name="ConflictingDelivery",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "received_at",
                    models.DateTimeField(
                        db_index=True, default=django.utils.timezone.now, verbose_name="received"
                    ),
                ),
                (
                    "source",
                    models.CharField(
                        db_default="bank", db_index=True, default="bank", max_length=16, verbose_name="source"
                    ),
                ),
                (
                    "client_ip",
                    models.CharField(
                        blank=True, db_default="", default="", max_length=39, verbose_name="client IP"
                    ),
                ),
                (
                    "difference",
                    models.CharField(
                        help_text="the fields that differ", max_length=255, verbose_name="difference"
                    ),
                ),
                ("body", models.BinaryField(help_text="the bytes as received", verbose_name="body")),
                (
                    "resolved_by",
                    models.ForeignKey(
                        db_constraint=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="ingest.operatoraction",
                        verbose_name="resolved by",
                    ),
                ),
                (
                    "webhook",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="conflicting_deliveries",
                        to="ingest.webhook",
                        verbose_name="webhook",
                    ),
                ),
            ],
            options={
                "verbose_name": "conflicting delivery",
                "verbose_name_plural": "conflicting deliveries",
            },
        ),
        migrations.CreateModel(
            name="UnrecognizedDelivery",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "received_at",
                    models.DateTimeField(
                        db_index=True, default=django.utils.timezone.now, verbose_name="received"
                    ),
                ),
                (
                    "source",
                    models.CharField(
                        db_default="bank", db_index=True, default="bank", max_length=16, verbose_name="source"
                    ),
                ),
                (
                    "client_ip",
                    models.CharField(
                        blank=True, db_default="", default="", max_length=39, verbose_name="client IP"
                    ),
                ),
                ("reason", models.CharField(max_length=255, verbose_name="reason")),
                ("body", models.BinaryField(help_text="the bytes as received", verbose_name="body")),
                (
                    "digest",
                    models.CharField(help_text="SHA-256 of the payload that was verified", max_length=64),
                ),
                (
                    "outcome",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("", "open"),
                            ("tried", "open, still unrecognized after reprocessing"),
                            ("stored", "stored as a webhook"),
                            ("duplicate", "already stored"),
                            ("conflict", "conflicts with a webhook"),
                            ("ignored", "not a payment"),
                            ("dismissed", "dismissed"),
                        ],
                        default="",
                        max_length=9,
                        verbose_name="state",
                    ),
                ),
                (
                    "last_action",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="unrecognized_deliveries",
                        to="ingest.operatoraction",
                        verbose_name="last operator action",
                    ),
                ),
                (
                    "webhook",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="ingest.webhook",
                        verbose_name="webhook",
                    ),
                ),
            ],
            options={
                "verbose_name": "unrecognized delivery",
                "verbose_name_plural": "unrecognized deliveries",
                "permissions": [
                    ("process_unrecognized", "Can process unrecognized deliveries again"),
                    ("dismiss_unrecognized", "Can dismiss unrecognized deliveries"),
                ],
                "indexes": [models.Index(fields=["outcome", "last_action"], name="unrecognized_outcome")],
                "constraints": [
                    models.UniqueConstraint(fields=("source", "digest"), name="unrecognized_unique_payload")
                ],
            },
        ),
        migrations.CreateModel(
            name="OperatorActionItem",
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
                    ),
                ),
                (
                    "action",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="webhooks",
                        to="ingest.operatoraction",
                    ),
                ),
                (
                    "webhook",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="action_items",
                        to="ingest.webhook",
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["outcome", "action"], name="action_item_outcome")],
                "constraints": [
                    models.UniqueConstraint(fields=("action", "webhook"), name="action_item_unique")
                ],
            },
        ),
        migrations.CreateModel(
            name="OperationVersion",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("operation_id", ledger.operation_id.OperationIdField(verbose_name="operation id")),
                ("position", models.PositiveIntegerField(verbose_name="No.")),
                ("version", models.BigIntegerField(verbose_name="version")),
                ("payer_inn", models.CharField(max_length=21, verbose_name="payer INN")),
                ("amount_kopecks", models.BigIntegerField(verbose_name="amount, kopecks")),
                ("document_number", models.CharField(max_length=255, verbose_name="document number")),
                ("document_date", models.DateTimeField(verbose_name="document date")),
                ("body", models.BinaryField(help_text="the bytes as received", verbose_name="body")),
                (
                    "received_at",
                    models.DateTimeField(default=django.utils.timezone.now, verbose_name="received"),
                ),
                ("source", models.CharField(default="bank", max_length=16, verbose_name="source")),
                (
                    "client_ip",
                    models.CharField(blank=True, default="", max_length=39, verbose_name="client IP"),
                ),
                (
                    "decision",
                    models.CharField(
                        choices=[
                            ("first", "first version"),
                            ("correction", "correction by the bank"),
                            ("deletion", "deletion by the bank"),
                            ("remembered", "deletion of an unknown operation"),
                            ("stale", "older than a known version: not posted"),
                            ("unclear", "restoration unclear"),
                            ("approved", "posted by an operator"),
                            ("duplicate", "duplicate"),
                            ("conflict", "conflict"),
                        ],
                        max_length=10,
                        verbose_name="decision",
                    ),
                ),
                (
                    "outcome",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("", "nothing to correct"),
                            ("due", "to be corrected"),
                            ("done", "done"),
                            ("operator", "left to an operator"),
                        ],
                        max_length=8,
                        verbose_name="correction",
                    ),
                ),
            ],
            options={
                "verbose_name": "operation version",
                "verbose_name_plural": "operation versions",
                "indexes": [models.Index(fields=["outcome"], name="version_outcome")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("operation_id", "position"), name="version_unique_position"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="SuspectedDuplicate",
            fields=[
                (
                    "webhook",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        primary_key=True,
                        related_name="suspected_duplicate",
                        serialize=False,
                        to="ingest.webhook",
                        verbose_name="later webhook",
                    ),
                ),
                ("found_at", models.DateTimeField(default=django.utils.timezone.now, verbose_name="found")),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("open", "undecided"),
                            ("cleared", "two payments"),
                            ("confirmed", "duplicate"),
                        ],
                        db_index=True,
                        default="open",
                        max_length=9,
                        verbose_name="state",
                    ),
                ),
                (
                    "is_shown_once",
                    models.BooleanField(default=False, verbose_name="once on the bank statement"),
                ),
                (
                    "decided_by",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="ingest.operatoraction",
                        verbose_name="decided by",
                    ),
                ),
                (
                    "first",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="look_alikes",
                        to="ingest.webhook",
                        verbose_name="first webhook",
                    ),
                ),
            ],
            options={
                "verbose_name": "suspected duplicate",
                "verbose_name_plural": "suspected duplicates",
            },
        ),
        migrations.CreateModel(
            name="StatementWebhook",
            fields=[
                (
                    "webhook",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        primary_key=True,
                        related_name="statement_webhook",
                        serialize=False,
                        to="ingest.webhook",
                    ),
                ),
                ("inn", models.CharField(max_length=21)),
                ("kopecks", models.BigIntegerField()),
                ("digits_key", models.CharField(max_length=32)),
                ("day", models.DateField()),
                ("booked_on", models.DateField()),
                (
                    "merged",
                    models.OneToOneField(
                        db_constraint=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="merged_into",
                        to="ingest.webhook",
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["inn", "kopecks"], name="statement_webhook_terms")],
            },
        ),
        migrations.RunPython(
            lambda apps, editor: triggers.create(editor.connection, APPEND_ONLY_TABLES),
            lambda apps, editor: triggers.drop(editor.connection, APPEND_ONLY_TABLES),
        ),
        migrations.RunPython(create_groups, migrations.RunPython.noop),
    ]
