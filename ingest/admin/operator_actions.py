"""The audit trail in the admin, and how far an act has come."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy as _

from core.admin import ReadOnlyAdmin, may_view
from ingest import operator_actions, unrecognized
from ingest.models import OperatorAction, OperatorActionItem, UnrecognizedDelivery, Webhook

SHOWN_MAX = 20  # webhooks of an act
_BY_NOW = {
    Webhook.Status.FAILED.value: _("failed again"),
    Webhook.Status.RECEIVED.value: _("waiting to be applied"),
}


@admin.register(OperatorAction)
class OperatorActionAdmin(ReadOnlyAdmin):
    list_display = ["at", "kind", "by_name", "reason"]
    list_filter = ["kind"]
    fields = ["kind", "at", "by_name", "reason"]
    ordering = ["-id"]
    change_form_template = "admin/ingest/operatoraction/change_form.html"

    class Media:
        css = {"all": ["ingest/admin/pages.css"]}

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whoever sees a webhook sees what persons did about it."""
        return super().has_view_permission(request, obj) or request.user.has_perm("ingest.view_webhook")

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        action = self.get_object(request, object_id)
        context = {**(extra_context or {})}
        if action and action.kind in unrecognized.KINDS:
            may_see = may_view(request.user, UnrecognizedDelivery)
            context |= _progress_of_deliveries(action, may_see=may_see)
        elif action:
            context |= _progress(action, with_webhooks=may_view(request.user, Webhook))
        return super().change_view(request, object_id, form_url, context)


def _progress(action: OperatorAction, *, with_webhooks: bool) -> dict[str, Any]:
    """How far it is, in numbers; and the webhooks that it is about."""
    progress = operator_actions.progress(action)
    names, statuses = dict(operator_actions.Outcome.choices), dict(Webhook.Status.choices)
    mine = OperatorActionItem.objects.filter(action=action)
    failed_again = mine.filter(outcome=operator_actions.Outcome.DONE, webhook__status=Webhook.Status.FAILED)
    return {
        "action": action,
        "progress": progress,
        "outcomes": [
            (progress.outcomes[each], names[each])
            for each in operator_actions.Outcome
            if progress.outcomes[each]
        ],
        "by_now": [
            (count, _BY_NOW.get(status) or statuses[status], status)
            for status, count in progress.by_now.items()
        ],
        "with_webhooks": with_webhooks,
        "failed_again": _shown(failed_again)
        if with_webhooks and progress.by_now[Webhook.Status.FAILED]
        else [],
        "about": _shown(mine) if with_webhooks else [],
    }


def _progress_of_deliveries(action: OperatorAction, *, may_see: bool) -> dict[str, Any]:
    progress = operator_actions.progress(action)
    names = dict(UnrecognizedDelivery.Outcome.choices) | {"": operator_actions.Outcome.PENDING.label}
    about = action.unrecognized_deliveries.defer("body").order_by("id")
    return {
        "action": action,
        "progress": progress,
        "outcomes": [(count, names[outcome]) for outcome, count in progress.outcomes.items()],
        "is_about_deliveries": True,
        "deliveries": about[:SHOWN_MAX] if may_see else [],
    }


def _shown(action_items: QuerySet[OperatorActionItem]) -> list[tuple[OperatorActionItem, Webhook | None]]:
    """The first of them with their webhooks, which may be gone."""
    first = list(action_items.order_by("id")[:SHOWN_MAX])
    webhooks = Webhook.objects.defer("body").in_bulk([one.webhook_id for one in first])
    return [(one, webhooks.get(one.webhook_id)) for one in first]
