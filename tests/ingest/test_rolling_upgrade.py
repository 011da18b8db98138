"""Between `migrate` and its restart a web process still inserts with the columns that it knows."""

from typing import Any

import pytest
from django.db import connection, migrations
from django.db.migrations.loader import MigrationLoader
from django.db.models import Field, Model

from ingest.models import (
    ConflictingDelivery,
    DuplicateDelivery,
    IgnoredDelivery,
    OperationAlias,
    RejectedDelivery,
    UnrecognizedDelivery,
    Webhook,
)
from tests.factories import MIDNIGHT_IN_MOSCOW, make_webhook, terms

pytestmark = pytest.mark.django_db
WRITTEN_BY_WEB: list[type[Model]] = [
    *(Webhook, OperationAlias, RejectedDelivery, IgnoredDelivery, DuplicateDelivery, ConflictingDelivery),
    UnrecognizedDelivery,
]
VALUES: dict[str, Any] = {
    "operation_id": terms().operation_id,
    "alias": terms().operation_id,
    "payer_inn": "7707083893",
    "amount_kopecks": 1,
    "document_date": MIDNIGHT_IN_MOSCOW,
    "received_at": MIDNIGHT_IN_MOSCOW,
    "body": b"{}",
}


@pytest.mark.parametrize("model", WRITTEN_BY_WEB, ids=lambda model: model.__name__)
def test_insert_by_the_first_version_still_works(model: type[Model]) -> None:
    """A column added later must be nullable or have a default in the database."""
    known = [field for field in model._meta.concrete_fields if field.name in first_fields(model)]
    values = VALUES | {"webhook": make_webhook().pk}
    writable = [field for field in known if not field.generated]
    inserted = [field for field in writable if not field.primary_key or field.name in values]
    placeholders = ", ".join(["%s"] * len(inserted))
    columns = ", ".join(str(field.column) for field in inserted)

    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {model._meta.db_table} ({columns}) VALUES ({placeholders})",
            [prepared(field, values) for field in inserted],
        )

    stored = model._default_manager.order_by("pk").last()
    for field in set(model._meta.concrete_fields) - set(known):
        assert getattr(stored, field.attname) == field.get_default(), field.name


def prepared(field: "Field[Any, Any]", values: dict[str, Any]) -> Any:
    return field.get_db_prep_save(values.get(field.name, field.get_default()), connection)


def first_fields(model: type[Model]) -> set[str]:
    """Return the names of the fields in the model's CreateModel operation."""
    [create] = [
        operation
        for (app, _), migration in MigrationLoader(None).disk_migrations.items()
        for operation in migration.operations
        if app == model._meta.app_label
        and isinstance(operation, migrations.CreateModel)
        and operation.name == model.__name__
    ]
    return {name for name, _ in create.fields}
