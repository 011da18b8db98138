"""Failures by their cause: a thousand of one cause are one line."""

from typing import Any

from django.contrib.admin.sites import AdminSite
from django.db.models import Count, Max, Min
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _

from ingest.models import Webhook

GROUPS_MAX = 100


def failures_by_fingerprint() -> list[dict[str, Any]]:
    """The kinds of the failed webhooks, most frequent first: error_fingerprint, webhooks, first, last, example.

    One more than GROUPS_MAX of them, at most.
    """
    kinds = Webhook.objects.failed().order_by().values("error_fingerprint")
    counted = kinds.annotate(
        webhooks=Count("id"), first=Min("received_at"), last=Max("received_at"), example=Max("id")
    )
    return [dict(kind) for kind in counted.order_by("-webhooks", "error_fingerprint")[: GROUPS_MAX + 1]]


def failures_page(request: HttpRequest, site: AdminSite, kinds_of_acts: dict[str, bool]) -> TemplateResponse:
    groups = failures_by_fingerprint()
    context = {
        **site.each_context(request),
        **kinds_of_acts,
        "title": _("Failures by cause"),
        "opts": Webhook._meta,
        "groups": groups[:GROUPS_MAX],
        "more": len(groups) > GROUPS_MAX,
    }
    return TemplateResponse(request, "admin/ingest/webhook/failures.html", context)
