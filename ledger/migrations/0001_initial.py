import django.db.models.deletion
from django.db import migrations, models

import ledger.operation_id
from ledger import triggers


class Migration(migrations.Migration):
    # MySQL ends a transaction at each CREATE TRIGGER.
    atomic = False

    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Organization",
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
                        choices=[("organization", "organization"), ("suspense", "suspense account")],
                        db_default="organization",
                        default="organization",
                        max_length=12,
                        verbose_name="kind",
                    ),
                ),
                ("inn", models.CharField(max_length=21, unique=True, verbose_name="INN")),
                ("balance_kopecks", models.BigIntegerField(default=0, verbose_name="balance, kopecks")),
                ("last_seq", models.BigIntegerField(default=0, verbose_name="last entry")),
                ("opened_at", models.DateTimeField(verbose_name="opened")),
            ],
            options={
                "verbose_name": "organization",
                "verbose_name_plural": "organizations",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("balance_kopecks__gte", 0)), name="balance_not_negative"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("balance_kopecks__lte", 9223372036854775807)),
                        name="balance_not_overflowing",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("inn__startswith", "@"), _negated=True), ("kind", "organization")
                        )
                        | models.Q(("inn__startswith", "@"), ("kind", "suspense")),
                        name="organization_kind",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Payment",
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
                (
                    "kind",
                    models.CharField(
                        choices=[("payment", "payment"), ("reversal", "reversal")],
                        db_default="payment",
                        default="payment",
                        max_length=8,
                        verbose_name="kind",
                    ),
                ),
                (
                    "reverses",
                    models.OneToOneField(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="reversal",
                        to="ledger.payment",
                        verbose_name="reversed payment",
                    ),
                ),
                ("amount_kopecks", models.BigIntegerField(verbose_name="amount, kopecks")),
                ("document_number", models.CharField(max_length=255, verbose_name="document number")),
                ("document_date", models.DateTimeField(verbose_name="document date")),
                ("created_at", models.DateTimeField(verbose_name="posted")),
                (
                    "organization",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="payments",
                        to="ledger.organization",
                        verbose_name="organization",
                    ),
                ),
            ],
            options={
                "verbose_name": "payment",
                "verbose_name_plural": "payments",
            },
        ),
        migrations.CreateModel(
            name="UnassignedPayment",
            fields=[],
            options={
                "verbose_name": "unassigned payment",
                "verbose_name_plural": "unassigned payments",
                "proxy": True,
                "indexes": [],
                "constraints": [],
            },
            bases=("ledger.payment",),
        ),
        migrations.CreateModel(
            name="Replacement",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "replaced",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="replaced_by",
                        to="ledger.payment",
                        verbose_name="replaced payment",
                    ),
                ),
                (
                    "payment",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="replaces",
                        to="ledger.payment",
                        verbose_name="payment",
                    ),
                ),
            ],
            options={
                "verbose_name": "replacement",
                "verbose_name_plural": "replacements",
            },
        ),
        migrations.CreateModel(
            name="BalanceLog",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("seq", models.BigIntegerField(verbose_name="No.")),
                ("amount_kopecks", models.BigIntegerField(verbose_name="amount, kopecks")),
                ("balance_after_kopecks", models.BigIntegerField(verbose_name="balance after, kopecks")),
                ("created_at", models.DateTimeField(verbose_name="posted")),
                (
                    "organization",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="log",
                        to="ledger.organization",
                        verbose_name="organization",
                    ),
                ),
                (
                    "payment",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="log_entry",
                        to="ledger.payment",
                        verbose_name="payment",
                    ),
                ),
            ],
            options={
                "verbose_name": "balance log entry",
                "verbose_name_plural": "balance log entries",
            },
        ),
        migrations.AddConstraint(
            model_name="payment",
            constraint=models.CheckConstraint(
                condition=models.Q(("amount_kopecks__gt", 0)), name="payment_positive"
            ),
        ),
        migrations.AddConstraint(
            model_name="payment",
            constraint=models.CheckConstraint(
                condition=models.Q(("kind", "payment"), ("reverses__isnull", True))
                | models.Q(("kind", "reversal"), ("reverses__isnull", False)),
                name="payment_kind",
            ),
        ),
        migrations.AddConstraint(
            model_name="balancelog",
            constraint=models.UniqueConstraint(
                fields=("organization", "seq"), name="unique_seq_per_organization"
            ),
        ),
        migrations.AddIndex(
            model_name="organization",
            index=models.Index(fields=["kind"], name="organization_kind_index"),
        ),
        migrations.AddIndex(
            model_name="payment",
            index=models.Index(fields=["organization", "reverses"], name="payment_of_organization"),
        ),
        migrations.RunPython(
            lambda apps, editor: triggers.create(editor.connection, triggers.LEDGER_TABLES),
            lambda apps, editor: triggers.drop(editor.connection, triggers.LEDGER_TABLES),
        ),
    ]
