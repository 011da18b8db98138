"""Permissions of the groups Operators and Auditors, for use in migrations."""

from collections.abc import Iterable, Mapping
from typing import Any

# (app, model, codename, name) of a permission
Permission = tuple[str, str, str, str]


def view(app: str, *models: str) -> list[Permission]:
    """Return the view permission of each model."""
    return [(app, model, f"view_{model}", f"Can view {model}") for model in models]


def grant(apps: Any, permissions: Mapping[str, Iterable[Permission]]) -> None:
    """Add permissions to groups by name; create missing groups, keep what existing ones have.

    Django creates permissions only after all migrations, so that missing ones are created here.
    """
    for name, granted in permissions.items():
        group, _ = apps.get_model("auth", "Group").objects.get_or_create(name=name)
        group.permissions.add(*(_permission(apps, *permission) for permission in granted))


def _permission(apps: Any, app: str, model: str, codename: str, name: str) -> Any:
    content_type, _ = apps.get_model("contenttypes", "ContentType").objects.get_or_create(
        app_label=app, model=model
    )
    permission, _ = apps.get_model("auth", "Permission").objects.get_or_create(
        content_type=content_type, codename=codename, defaults={"name": name}
    )
    return permission
