from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("ingest", "0011_unrecognized_deliveries"),
    ]

    operations = [
        migrations.CreateModel(
            name="Misconfiguration",
            fields=[
                ("setting", models.CharField(max_length=16, primary_key=True, serialize=False)),
                ("detail", models.CharField(max_length=253)),
                ("seen_at", models.DateTimeField()),
            ],
        ),
    ]
