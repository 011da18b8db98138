from typing import Any

from django.db import migrations

BOTH_SEE = [("monitoring", "alert"), ("worker", "beat")]


def let_both_see(apps: Any, editor: Any) -> None:
    """What the dashboard links to. Django makes permissions after all migrations; these are needed now."""
    for app, model in BOTH_SEE:
        content_type, _ = apps.get_model("contenttypes", "ContentType").objects.get_or_create(
            app_label=app, model=model
        )
        permission, _ = apps.get_model("auth", "Permission").objects.get_or_create(
            content_type=content_type, codename=f"view_{model}", defaults={"name": f"Can view {model}"}
        )
        for group in apps.get_model("auth", "Group").objects.filter(name__in=["Operators", "Auditors"]):
            group.permissions.add(permission)


class Migration(migrations.Migration):
    dependencies = [
        ("monitoring", "0001_initial"),
        ("worker", "0001_initial"),
        ("ingest", "0006_error_kinds_and_groups"),
        ("contenttypes", "0002_remove_content_type_name"),
        ("auth", "0012_alter_user_first_name_max_length"),
    ]

    operations = [migrations.RunPython(let_both_see, migrations.RunPython.noop)]
