"""The page of failed webhooks grouped by the fingerprint of their error."""

from typing import Any

from django.contrib.admin.sites import AdminSite
from django.db.models import Count, Max, Min
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _

from ingest.models import Webhook

GROUPS_MAX = 100


def failures_by_fingerprint() -> list[dict[str, Any]]:
    """Return up to GROUPS_MAX + 1 groups, most frequent first.

    Each has error_fingerprint, webhooks (a count), first and last (times of receipt) and example (a key).
    """
    groups = Webhook.objects.failed().order_by().values("error_fingerprint")
    counted = groups.annotate(
        webhooks=Count("id"), first=Min("received_at"), last=Max("received_at"), example=Max("id")
    )
    return [dict(group) for group in counted.order_by("-webhooks", "error_fingerprint")[: GROUPS_MAX + 1]]


def failures_page(request: HttpRequest, site: AdminSite, permissions: dict[str, bool]) -> TemplateResponse:
    groups = failures_by_fingerprint()
    context = {
        **site.each_context(request),
        **permissions,
        "title": _("Failures by cause"),
        "opts": Webhook._meta,
        "groups": groups[:GROUPS_MAX],
        "more": len(groups) > GROUPS_MAX,
    }
    return TemplateResponse(request, "admin/ingest/webhook/failures.html", context)
