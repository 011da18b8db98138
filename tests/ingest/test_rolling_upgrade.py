"""Between `migrate` and its restart a web process still stores by the columns that it knows."""

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
WRITTEN_AT_THE_DOOR: list[type[Model]] = [
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


@pytest.mark.parametrize("model", WRITTEN_AT_THE_DOOR, ids=lambda model: model.__name__)
def test_a_web_process_of_the_first_version_goes_on_storing(model: type[Model]) -> None:
    """A column that was added later needs a default in the database, or to be nullable."""
    known = [field for field in model._meta.concrete_fields if field.name in first_fields(model)]
    values = VALUES | {"webhook": make_webhook().pk}
    told = [field for field in known if not field.primary_key or field.name in values]
    places = ", ".join(["%s"] * len(told))
    columns = ", ".join(str(field.column) for field in told)

    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {model._meta.db_table} ({columns}) VALUES ({places})",
            [prepared(field, values) for field in told],
        )

    stored = model._default_manager.order_by("pk").last()
    for field in set(model._meta.concrete_fields) - set(known):
        expected = VALUES["payer_inn"] if field.name == "queued_inn" else field.get_default()
        assert getattr(stored, field.attname) == expected, field.name


def prepared(field: "Field[Any, Any]", values: dict[str, Any]) -> Any:
    return field.get_db_prep_save(values.get(field.name, field.get_default()), connection)


def first_fields(model: type[Model]) -> set[str]:
    """Those that the table had from its beginning."""
    [made] = [
        operation
        for (app, _), migration in MigrationLoader(None).disk_migrations.items()
        for operation in migration.operations
        if app == model._meta.app_label
        and isinstance(operation, migrations.CreateModel)
        and operation.name == model.__name__
    ]
    return {name for name, _ in made.fields}
