"""A lookup for many primary keys in one statement."""

from collections.abc import Collection
from typing import Any

from django.db.models import Lookup


class InLiterals(Lookup):
    """`id__in_literals=keys`: `id__in=keys` with integer literals instead of query parameters.

    Each posting statement names about 500 keys; with parameters it takes a tenth longer. Django preprocesses
    a list or tuple key by key; a value of any other collection type reaches the lookup unchanged.
    """

    lookup_name = "in_literals"
    prepare_rhs = False
    rhs: Collection[int]

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        column, parameters = self.process_lhs(compiler, connection)
        keys = ", ".join(f"{key:d}" for key in self.rhs) or "NULL"
        return f"{column} IN ({keys})", tuple(parameters)
