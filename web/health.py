"""Whether this process should get requests."""

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
    """The process is up; touches nothing, so that a broken database doesn't get it restarted."""
    return json_response(Healthy("ok"))


@json_view("GET", "HEAD")
def readyz(request: HttpRequest) -> HttpResponse:
    """The database answers and has every migration."""
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        return error_response(503, "migrations are missing: manage.py migrate")
    return json_response(Healthy("ok"))
