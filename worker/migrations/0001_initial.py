from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Checkpoint",
            fields=[
                ("task", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("key", models.BigIntegerField()),
            ],
        ),
        migrations.CreateModel(
            name="Heartbeat",
            fields=[
                (
                    "name",
                    models.CharField(
                        help_text="process and host",
                        max_length=255,
                        primary_key=True,
                        serialize=False,
                        verbose_name="name",
                    ),
                ),
                (
                    "kind",
                    models.CharField(
                        choices=[("worker", "worker"), ("scheduler", "scheduler")],
                        max_length=9,
                        verbose_name="kind",
                    ),
                ),
                (
                    "processes",
                    models.PositiveIntegerField(help_text="that apply webhooks", verbose_name="processes"),
                ),
                (
                    "seen_at",
                    models.DateTimeField(help_text="by the database's clock", verbose_name="last heartbeat"),
                ),
            ],
            options={
                "verbose_name": "heartbeat",
                "verbose_name_plural": "heartbeats",
            },
        ),
        migrations.CreateModel(
            name="Lease",
            fields=[
                ("name", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("expires_at", models.DateTimeField()),
            ],
        ),
    ]
