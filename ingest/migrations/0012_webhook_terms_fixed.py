from django.db import migrations

from ingest.guarding import WEBHOOKS
from ledger import triggers


class Migration(migrations.Migration):
    """The database refuses to delete a webhook from here on; column grants fix what it says."""

    # MySQL ends a transaction at each CREATE TRIGGER.
    atomic = False
    dependencies = [("ingest", "0011b_misconfiguration")]
    operations = [
        migrations.RunPython(
            lambda apps, editor: triggers.create(editor.connection, WEBHOOKS),
            lambda apps, editor: triggers.drop(editor.connection, WEBHOOKS),
        ),
    ]
