"""Writing rows that the database makes of other rows."""

from typing import Any, cast

from django.db import connection
from django.db.models import Field, Model, QuerySet
from django.db.models.expressions import Combinable


def insert_select(model: type[Model], told: QuerySet[Any], **columns: Combinable) -> int:
    """INSERT … SELECT a row of `model` for each row of `told`, in its order; returns how many.

    At READ COMMITTED it locks nothing of what it reads.
    """
    names = ", ".join(cast("Field[Any, Any]", model._meta.get_field(name)).attname for name in columns)
    select, parameters = told.values_list(*columns.values()).query.sql_with_params()
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {model._meta.db_table} ({names}) {select}", parameters)
        written: int = cursor.rowcount
    return written
