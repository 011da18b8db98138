"""Whether this process should get requests."""

from typing import Literal

from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse
from msgspec import Struct

from api.answers import answer, error, json_only


class Healthy(Struct):
    status: Literal["ok"]


@json_only("GET", "HEAD")
def healthz(request: HttpRequest) -> HttpResponse:
    """The process is up; touches nothing, so that a broken database doesn't get it restarted."""
    return answer(Healthy("ok"))


@json_only("GET", "HEAD")
def readyz(request: HttpRequest) -> HttpResponse:
    """The database answers and has every migration."""
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        return error(503, "migrations are missing: manage.py migrate")
    return answer(Healthy("ok"))
