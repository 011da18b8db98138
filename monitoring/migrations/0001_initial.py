from typing import Any

from django.db import migrations, models

from core.groups import grant, view

# What the dashboard links to.
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
                ("level", models.PositiveSmallIntegerField(verbose_name="level")),
                ("text", models.TextField(verbose_name="text")),
                ("remedy", models.TextField(verbose_name="what to do")),
                (
                    "size",
                    models.PositiveIntegerField(help_text="how much of it there is", verbose_name="size"),
                ),
                ("started_at", models.DateTimeField(verbose_name="began at")),
                (
                    "looks",
                    models.PositiveSmallIntegerField(
                        default=0, help_text="in a row that saw it", verbose_name="looks"
                    ),
                ),
                ("notified_at", models.DateTimeField(null=True, verbose_name="told at")),
                ("notified_magnitude", models.PositiveIntegerField(default=0, verbose_name="size when told")),
                ("cleared_at", models.DateTimeField(null=True, verbose_name="gone at")),
                (
                    "clear_count",
                    models.PositiveSmallIntegerField(
                        default=0, help_text="in a row that saw it no more", verbose_name="looks without"
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
                ("received", models.PositiveIntegerField(help_text="webhooks that were stored")),
                ("applied", models.PositiveIntegerField(help_text="payments that were posted")),
            ],
        ),
        migrations.RunPython(grant_views, migrations.RunPython.noop),
    ]
