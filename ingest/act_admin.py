"""The audit trail in the admin, and how far an act has come."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy as _

from ingest import acts, unrecognized
from ingest.models import Act, ActedWebhook, UnrecognizedDelivery, Webhook
from ledger.browsing import ReadOnlyAdmin

SHOWN_MAX = 20  # webhooks of an act
_BY_NOW = {
    Webhook.Status.FAILED.value: _("failed again"),
    Webhook.Status.RECEIVED.value: _("waiting to be applied"),
}


@admin.register(Act)
class ActAdmin(ReadOnlyAdmin):
    list_display = ["at", "kind", "by_name", "reason"]
    list_filter = ["kind"]
    fields = ["kind", "at", "by_name", "reason"]
    ordering = ["-id"]
    change_form_template = "admin/ingest/act/change_form.html"

    class Media:
        css = {"all": ["ingest/admin.css"]}

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whoever sees a webhook sees what persons did about it."""
        return super().has_view_permission(request, obj) or request.user.has_perm("ingest.view_webhook")

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        act = self.get_object(request, object_id)
        context = {**(extra_context or {})}
        if act and act.kind in unrecognized.KINDS:
            may_see = request.user.has_perm("ingest.view_unrecognizeddelivery")
            context |= _progress_of_deliveries(act, may_see=may_see)
        elif act:
            context |= _progress(act)
        return super().change_view(request, object_id, form_url, context)


def _progress(act: Act) -> dict[str, Any]:
    progress = acts.progress(act)
    names, statuses = dict(acts.Outcome.choices), dict(Webhook.Status.choices)
    mine = ActedWebhook.objects.filter(act=act)
    failed_again = mine.filter(outcome=acts.Outcome.DONE, webhook__status=Webhook.Status.FAILED)
    return {
        "act": act,
        "progress": progress,
        "outcomes": [
            (progress.outcomes[each], names[each]) for each in acts.Outcome if progress.outcomes[each]
        ],
        "by_now": [
            (count, _BY_NOW.get(status) or statuses[status], status)
            for status, count in progress.by_now.items()
        ],
        "failed_again": _shown(failed_again) if progress.by_now[Webhook.Status.FAILED] else [],
        "about": _shown(mine),
    }


def _progress_of_deliveries(act: Act, *, may_see: bool) -> dict[str, Any]:
    progress = acts.progress(act)
    names = dict(UnrecognizedDelivery.Outcome.choices) | {"": acts.Outcome.PENDING.label}
    about = act.unrecognized_deliveries.defer("body").order_by("id")
    return {
        "act": act,
        "progress": progress,
        "outcomes": [(count, names[outcome]) for outcome, count in progress.outcomes.items()],
        "is_about_deliveries": True,
        "deliveries": about[:SHOWN_MAX] if may_see else [],
    }


def _shown(acted: QuerySet[ActedWebhook]) -> list[tuple[ActedWebhook, Webhook | None]]:
    """The first of them with their webhooks, which may be gone."""
    first = list(acted.order_by("id")[:SHOWN_MAX])
    webhooks = Webhook.objects.defer("body").in_bulk([one.webhook_id for one in first])
    return [(one, webhooks.get(one.webhook_id)) for one in first]
