from collections.abc import Iterator
from itertools import islice
from typing import Any

from django.conf import settings
from django.db import migrations

from ingest.error_kind import kind_of

CHUNK_WEBHOOKS = 500
OPERATORS_MAY = {
    "replay_webhook": "Can replay failed webhooks",
    "dismiss_webhook": "Can dismiss failed webhooks",
    "resolve_conflict": "Can resolve conflicts",
}
BOTH_SEE = {
    "ingest": [
        "webhook",
        "rejecteddelivery",
        "repeateddelivery",
        "conflictingdelivery",
        "ignoreddelivery",
        "verification",
        "act",
        "actedwebhook",
    ],
    "ledger": ["organization", "payment", "balancelog"],
    "django_celery_results": ["taskresult"],
}


def tell_error_kinds(apps: Any, editor: Any) -> None:
    webhook = apps.get_model("ingest", "Webhook")
    failed = iter(webhook.objects.filter(status="failed").only("last_error").order_by("id").iterator())
    while chunk := list(islice(failed, CHUNK_WEBHOOKS)):
        for one in chunk:
            one.error_kind = kind_of(one.last_error)
        webhook.objects.bulk_update(chunk, ["error_kind"])


def make_groups(apps: Any, editor: Any) -> None:
    """Operators look and act, Auditors look. Groups of these names that are there keep what they have.

    Django makes permissions after all migrations; those that are needed here are made here.
    """
    group = apps.get_model("auth", "Group")
    seen = list(_to_see(apps))
    acting = [_permission(apps, "ingest", "webhook", *told) for told in OPERATORS_MAY.items()]
    for name, permissions in {"Operators": [*seen, *acting], "Auditors": seen}.items():
        group.objects.get_or_create(name=name)[0].permissions.add(*permissions)


def _to_see(apps: Any) -> Iterator[Any]:
    for app, models in BOTH_SEE.items():
        for model in models:
            called = apps.get_model(app, model)._meta.verbose_name_raw
            yield _permission(apps, app, model, f"view_{model}", f"Can view {called}")


def _permission(apps: Any, app: str, model: str, codename: str, name: str) -> Any:
    content_type, _ = apps.get_model("contenttypes", "ContentType").objects.get_or_create(
        app_label=app, model=model
    )
    permission, _ = apps.get_model("auth", "Permission").objects.get_or_create(
        content_type=content_type, codename=codename, defaults={"name": name}
    )
    return permission


class Migration(migrations.Migration):
    dependencies = [
        ("ingest", "0005_audit_trail_only_grows"),
        ("ledger", "0003_balance_not_overflown"),
        ("contenttypes", "0002_remove_content_type_name"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("django_celery_results", "0014_alter_taskresult_status"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]
    operations = [
        migrations.RunPython(tell_error_kinds, migrations.RunPython.noop),
        migrations.RunPython(make_groups, migrations.RunPython.noop),
    ]
