from django.db import migrations

from ledger import triggers


class Migration(migrations.Migration):
    """The database refuses to change who an organization is, and to delete one, from here on."""

    # MySQL ends a transaction at each CREATE TRIGGER.
    atomic = False
    dependencies = [("ledger", "0004_words_of_pages")]
    operations = [
        migrations.RunPython(
            lambda apps, editor: triggers.create(editor.connection, triggers.ORGANIZATIONS),
            lambda apps, editor: triggers.drop(editor.connection, triggers.ORGANIZATIONS),
        ),
    ]
