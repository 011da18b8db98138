from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("ingest", "0012_webhook_terms_fixed")]

    operations = [
        migrations.AddField(
            model_name="verification",
            name="drifts_found",
            field=models.PositiveIntegerField(db_default=0, default=0, verbose_name="drifts found"),
        ),
        migrations.AddField(
            model_name="verification",
            name="is_whole",
            field=models.BooleanField(db_default=True, default=True, verbose_name="of all the books"),
        ),
        migrations.AddField(
            model_name="verification",
            name="payments_to",
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="verification",
            name="lines_to",
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="verification",
            name="webhooks_to",
            field=models.BigIntegerField(db_default=0, default=0),
        ),
    ]
