"""Who answers what."""

import sys

from django.contrib import admin
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.generic import RedirectView
from django.views.i18n import set_language

from api.answers import error, unavailable
from config import health, openapi
from ingest import views as ingest
from ingest.doors import DOORS
from ledger import views as ledger
from monitoring.exposition import metrics


def handler400(request: HttpRequest, exception: Exception) -> HttpResponse:
    return error(400, "malformed request")


def handler404(request: HttpRequest, exception: Exception | None = None, rest: str = "") -> HttpResponse:
    return error(404, "Not found")


def handler500(request: HttpRequest) -> HttpResponse:
    """To a person as a page that needs nothing of the database. It may be what failed."""
    is_away = isinstance(sys.exception(), OperationalError | InterfaceError)
    if request.path.startswith("/admin/"):
        page = render_to_string("failed.html", {"is_away": is_away})
        return HttpResponse(page, status=503 if is_away else 500)
    if is_away:
        return unavailable("temporarily unavailable, please try again")
    return error(500, "something failed here, and is logged")


urlpatterns = [
    *(path(f"api/webhook/{door.name}/", ingest.webhook, {"door": door}) for door in DOORS),
    path("api/organizations/<str:inn>/balance/", ledger.balance),
    path("api/organizations/<str:inn>/balance/history/", ledger.history),
    path("api/operations/<str:operation_id>/", ingest.operation),
    path("api/openapi.json", openapi.openapi, name="openapi"),
    path("api/docs/", openapi.page),
    path("api/<path:rest>", csrf_exempt(handler404)),  # also with DEBUG on, where Django would answer HTML
    path("", RedirectView.as_view(url="/admin/")),
    path("admin/language/", set_language, name="set_language"),
    path("admin/", admin.site.urls),
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("metrics", metrics),
]
