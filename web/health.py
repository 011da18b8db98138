"""The liveness and readiness probes."""

from typing import Literal

from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse
from msgspec import Struct

from core.http import error_response, json_response, json_view


class Healthy(Struct):
    status: Literal["ok"]


@json_view("GET", "HEAD")
def healthz(request: HttpRequest) -> HttpResponse:
    """Report that the process is up, without the database, whose failure no restart would repair."""
    return json_response(Healthy("ok"))


@json_view("GET", "HEAD")
def readyz(request: HttpRequest) -> HttpResponse:
    """Report whether the database is reachable and fully migrated."""
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        return error_response(503, "migrations are missing: manage.py migrate")
    return json_response(Healthy("ok"))
