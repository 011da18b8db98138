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
                        help_text="what it is, and the host it is on",
                        max_length=255,
                        primary_key=True,
                        serialize=False,
                        verbose_name="name",
                    ),
                ),
                (
                    "kind",
                    models.CharField(
                        choices=[("worker", "worker"), ("beat", "scheduler")],
                        max_length=6,
                        verbose_name="kind",
                    ),
                ),
                (
                    "processes",
                    models.PositiveIntegerField(help_text="that apply webhooks", verbose_name="processes"),
                ),
                (
                    "seen_at",
                    models.DateTimeField(help_text="by the database's clock", verbose_name="last beat"),
                ),
            ],
            options={
                "verbose_name": "beat",
                "verbose_name_plural": "beats",
            },
        ),
        migrations.CreateModel(
            name="Lease",
            fields=[
                ("name", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("until", models.DateTimeField()),
            ],
        ),
    ]
