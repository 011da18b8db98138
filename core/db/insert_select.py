"""INSERT … SELECT, which Django's ORM lacks."""

from typing import Any, cast

from django.db import connection
from django.db.models import Field, Model, QuerySet
from django.db.models.expressions import Combinable


def insert_select(model: type[Model], source: QuerySet[Any], **columns: Combinable) -> int:
    """Insert a row of `model` for each row of `source`, in its order; return the number of rows.

    `columns` maps the model's fields to expressions over `source`. At READ COMMITTED the rows that it reads
    are not locked.
    """
    names = ", ".join(cast("Field[Any, Any]", model._meta.get_field(name)).attname for name in columns)
    select, parameters = source.values_list(*columns.values()).query.sql_with_params()
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {model._meta.db_table} ({names}) {select}", parameters)
        inserted: int = cursor.rowcount
    return inserted
