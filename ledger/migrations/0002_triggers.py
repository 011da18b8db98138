from django.db import migrations

from ledger import triggers


class Migration(migrations.Migration):
    """The database refuses UPDATE and DELETE on payments and log lines from here on."""

    # MySQL ends a transaction at each CREATE TRIGGER.
    atomic = False
    dependencies = [("ledger", "0001_initial")]
    operations = [
        migrations.RunPython(
            lambda apps, editor: triggers.create(editor.connection, triggers.LEDGER),
            lambda apps, editor: triggers.drop(editor.connection, triggers.LEDGER),
        ),
    ]
