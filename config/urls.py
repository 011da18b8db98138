"""The URL configuration, and the handlers of errors outside of views."""

import sys

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import path, re_path
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_exempt
from django.views.generic import RedirectView
from django.views.i18n import set_language

from backoffice.locale import ADMIN_PREFIX
from core.db.transactions import is_transient
from core.http import error_response, service_unavailable
from ingest import views as ingest
from ingest.banks.registry import ENDPOINTS
from ledger import views as ledger
from monitoring.prometheus import metrics
from statements.upload_view import bank_statements
from web import health, openapi
from web.notice_page import render_notice

PROBES = {"healthz": health.healthz, "readyz": health.readyz, "metrics": metrics}


def handler400(request: HttpRequest, exception: Exception) -> HttpResponse:
    response = error_response(400, "malformed request")
    if request.path.startswith(ADMIN_PREFIX):
        return render_notice(response, _("Invalid address"), _("A part of it is malformed or too long."))
    return response


def handler404(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return error_response(404, "Not found")


def handler500(request: HttpRequest) -> HttpResponse:
    exc = sys.exception()
    if exc is not None and is_transient(exc):
        response = service_unavailable("temporarily unavailable, please try again")
        heading = _("The database is temporarily unavailable")
        sentence = _(
            "No payment is lost. Try again in a moment. If the error persists, manage.py doctor shows its "
            "cause, and docs/runbook.md the remedy."
        )
    else:
        response = error_response(500, "internal error; see the log")
        heading, sentence = _("Internal error"), _("The log shows the cause. No payment is lost.")
    return render_notice(response, heading, sentence) if request.path.startswith(ADMIN_PREFIX) else response


urlpatterns = [
    # Also without the final slash, because a bank configured with that URL would take a 404 for final.
    *(
        path(f"api/webhook/{endpoint.name}{slash}", ingest.webhook, {"endpoint": endpoint})
        for endpoint in ENDPOINTS
        for slash in ("/", "")
    ),
    path("api/organizations/<str:inn>/balance/", ledger.balance),
    path("api/organizations/<str:inn>/balance/history/", ledger.history),
    path("api/operations/<str:operation_id>/", ingest.operation_status),
    path("api/bank-statements/", bank_statements),
    path("api/openapi.json", openapi.openapi, name="openapi"),
    path("api/docs/", openapi.docs_page),
    # With DEBUG=1, too, where Django would answer in HTML. [\s\S] because . doesn't match line feeds.
    re_path(r"^api(?:/[\s\S]*)?\Z", csrf_exempt(handler404)),
    path("", RedirectView.as_view(url="/admin/")),
    path("admin/language/", set_language, name="set_language"),
    path("admin/", admin.site.urls),
    *(path(f"{name}{slash}", view) for name, view in PROBES.items() for slash in ("", "/")),
]
