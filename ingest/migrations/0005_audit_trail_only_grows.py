from django.db import migrations

from ingest.guarding import ACTS
from ledger import triggers


class Migration(migrations.Migration):
    """The database refuses UPDATE and DELETE on what persons did from here on."""

    # MySQL ends a transaction at each CREATE TRIGGER.
    atomic = False
    dependencies = [("ingest", "0004_acts")]
    operations = [
        migrations.RunPython(
            lambda apps, editor: triggers.create(editor.connection, ACTS),
            lambda apps, editor: triggers.drop(editor.connection, ACTS),
        ),
    ]
