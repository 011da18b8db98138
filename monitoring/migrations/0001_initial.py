from typing import Any

from django.db import migrations, models

from core.groups import grant, view

# Pages that the dashboard links to.
VIEWED = [*view("monitoring", "alert"), *view("worker", "heartbeat")]


def grant_views(apps: Any, editor: Any) -> None:
    grant(apps, {"Operators": VIEWED, "Auditors": VIEWED})


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("ingest", "0001_initial"),
        ("worker", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="Alert",
            fields=[
                (
                    "cause",
                    models.CharField(max_length=64, primary_key=True, serialize=False, verbose_name="cause"),
                ),
                ("severity", models.PositiveSmallIntegerField(verbose_name="severity")),
                ("text", models.TextField(verbose_name="text")),
                ("remedy", models.TextField(verbose_name="remedy")),
                (
                    "magnitude",
                    models.PositiveIntegerField(
                        help_text="number of affected rows", verbose_name="magnitude"
                    ),
                ),
                ("started_at", models.DateTimeField(verbose_name="started at")),
                (
                    "seen_count",
                    models.PositiveSmallIntegerField(
                        default=0, help_text="consecutive checks that found it", verbose_name="seen"
                    ),
                ),
                ("notified_at", models.DateTimeField(null=True, verbose_name="notified at")),
                (
                    "notified_magnitude",
                    models.PositiveIntegerField(default=0, verbose_name="notified magnitude"),
                ),
                ("cleared_at", models.DateTimeField(null=True, verbose_name="cleared at")),
                (
                    "clear_count",
                    models.PositiveSmallIntegerField(
                        default=0,
                        help_text="consecutive checks that did not find it",
                        verbose_name="clear",
                    ),
                ),
            ],
            options={
                "verbose_name": "alert",
                "verbose_name_plural": "alerts",
            },
        ),
        migrations.CreateModel(
            name="AlertLease",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("due_at", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="MinuteThroughput",
            fields=[
                ("started_at", models.DateTimeField(primary_key=True, serialize=False)),
                ("received", models.PositiveIntegerField(help_text="stored webhooks")),
                ("applied", models.PositiveIntegerField(help_text="posted payments")),
            ],
        ),
        migrations.RunPython(grant_views, migrations.RunPython.noop),
    ]
