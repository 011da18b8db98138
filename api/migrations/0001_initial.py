from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="ApiKey",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "name",
                    models.CharField(
                        help_text="the program or person that uses the key",
                        max_length=100,
                        verbose_name="name",
                    ),
                ),
                ("prefix", models.CharField(max_length=12, unique=True, verbose_name="prefix")),
                ("digest", models.CharField(max_length=64)),
                (
                    "scopes",
                    models.TextField(
                        help_text=(
                            "read:all, or INNs that may be read; write:bank-statements; separated by spaces"
                        ),
                        verbose_name="scopes",
                    ),
                ),
                ("created_at", models.DateTimeField(verbose_name="issued")),
                ("expires_at", models.DateTimeField(blank=True, null=True, verbose_name="expires")),
                ("revoked_at", models.DateTimeField(blank=True, null=True, verbose_name="revoked")),
                ("last_used_at", models.DateTimeField(blank=True, null=True, verbose_name="last used")),
            ],
            options={
                "verbose_name": "API key",
                "verbose_name_plural": "API keys",
                "permissions": [("revoke_apikey", "Can revoke API key")],
                "default_permissions": ("add", "view"),
            },
        ),
        migrations.CreateModel(
            name="FailedReadCount",
            fields=[
                ("bucket", models.IntegerField(primary_key=True, serialize=False)),
                ("minute", models.BigIntegerField()),
                ("failures", models.IntegerField()),
            ],
            options={
                "default_permissions": (),
            },
        ),
    ]
