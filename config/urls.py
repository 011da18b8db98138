"""Who answers what."""

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
from web import health, openapi
from web.notice_page import render_notice

PROBES = {"healthz": health.healthz, "readyz": health.readyz, "metrics": metrics}


def handler400(request: HttpRequest, exception: Exception) -> HttpResponse:
    answer = error_response(400, "malformed request")
    if request.path.startswith(ADMIN_PREFIX):
        return render_notice(
            answer, _("This address means nothing here"), _("A part of it is wrong or too long.")
        )
    return answer


def handler404(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return error_response(404, "Not found")


def handler500(request: HttpRequest) -> HttpResponse:
    fault = sys.exception()
    will_pass = fault is not None and is_transient(fault)
    if will_pass:
        answer = service_unavailable("temporarily unavailable, please try again")
        heading = _("The database can't do this now")
        sentence = _(
            "No payment is lost by it. Try again in a moment; if it lasts, manage.py doctor says why, and "
            "docs/runbook.md what to do."
        )
    else:
        answer = error_response(500, "something failed here, and is logged")
        heading, sentence = _("Something failed here"), _("The log says what. No payment is lost by it.")
    return render_notice(answer, heading, sentence) if request.path.startswith(ADMIN_PREFIX) else answer


urlpatterns = [
    *(
        path(f"api/webhook/{endpoint.name}/", ingest.webhook, {"endpoint": endpoint})
        for endpoint in ENDPOINTS
    ),
    # A bank that was given the URL without its last slash would hear 404, and give the payment up.
    *(path(f"api/webhook/{endpoint.name}", ingest.webhook, {"endpoint": endpoint}) for endpoint in ENDPOINTS),
    path("api/organizations/<str:inn>/balance/", ledger.balance),
    path("api/organizations/<str:inn>/balance/history/", ledger.history),
    path("api/operations/<str:operation_id>/", ingest.operation_status),
    path("api/openapi.json", openapi.openapi, name="openapi"),
    path("api/docs/", openapi.docs_page),
    # Also with DEBUG on, where Django would answer HTML. A path can hold line feeds, which . doesn't match.
    re_path(r"^api(?:/[\s\S]*)?\Z", csrf_exempt(handler404)),
    path("", RedirectView.as_view(url="/admin/")),
    path("admin/language/", set_language, name="set_language"),
    path("admin/", admin.site.urls),
    *(path(f"{name}{slash}", view) for name, view in PROBES.items() for slash in ("", "/")),
]
