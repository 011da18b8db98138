"""Many keys in one statement."""

from collections.abc import Collection
from typing import Any

from django.db.models import Lookup


class InLiterals(Lookup):
    """`id__in_literals=keys` finds what `id__in=keys` does, with each key written out instead of as a parameter.

    Posting names five hundred of them in each of its statements; with parameters it takes a tenth longer.
    Django goes through a list or tuple beforehand, key by key, and takes any other collection as it is.
    """

    lookup_name = "in_literals"
    prepare_rhs = False
    rhs: Collection[int]

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        column, parameters = self.process_lhs(compiler, connection)
        keys = ", ".join(f"{key:d}" for key in self.rhs) or "NULL"
        return f"{column} IN ({keys})", tuple(parameters)
