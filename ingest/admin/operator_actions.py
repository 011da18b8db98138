"""The audit trail in the admin: the operator actions and their progress."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from core.admin import ReadOnlyAdmin, Viewer, may_view
from ingest import action_progress, operator_actions, unrecognized
from ingest.models import OperatorAction, OperatorActionItem, UnrecognizedDelivery, Webhook

SHOWN_MAX = 20  # items of an action
Kind = OperatorAction.Kind
_STATUS_LABELS = {
    Webhook.Status.FAILED.value: _("failed again"),
    Webhook.Status.RECEIVED.value: _("waiting to be applied"),
}


@dataclass(frozen=True, slots=True)
class ItemRow:
    """What an action was on, how it ended and why."""

    target: str | Promise
    payer: str
    amount: str
    outcome: str | Promise
    refusal: str | Promise


@dataclass(frozen=True, slots=True)
class ItemRows:
    """The first items of an action, and of the refused ones (number, why)."""

    rows: Sequence[ItemRow]
    refusals: Sequence[tuple[int, str | Promise]]


_ITEM_ROWS: dict[Kind, Callable[[OperatorAction, Viewer], ItemRows]] = {}


def register_items(kinds: Iterable[Kind], rows: Callable[[OperatorAction, Viewer], ItemRows]) -> None:
    """Show the items of actions of `kinds`, on rows of a package above, by `rows`."""
    _ITEM_ROWS.update(dict.fromkeys(kinds, rows))


@admin.register(OperatorAction)
class OperatorActionAdmin(ReadOnlyAdmin):
    list_display = ["at", "kind", "by_name", "reason"]
    list_filter = ["kind"]
    fields = ["kind", "at", "by_name", "reason", "inn"]
    ordering = ["-id"]
    change_form_template = "admin/ingest/operatoraction/change_form.html"

    class Media:
        css = {"all": ["ingest/admin.css"]}

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may view actions, or webhooks, whose timelines show their actions."""
        return super().has_view_permission(request, obj) or request.user.has_perm("ingest.view_webhook")

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        action = self.get_object(request, object_id)
        context = {**(extra_context or {})}
        if action and (rows := _ITEM_ROWS.get(Kind(action.kind))):
            context |= _items_context(action, rows(action, request.user))
        elif action and action.kind in unrecognized.KINDS:
            context |= _deliveries_context(action, may_view=may_view(request.user, UnrecognizedDelivery))
        elif action:
            context |= _webhooks_context(action, may_view=may_view(request.user, Webhook))
        return super().change_view(request, object_id, form_url, context)


def _webhooks_context(action: OperatorAction, *, may_view: bool) -> dict[str, Any]:
    progress = action_progress.progress(action)
    labels, statuses = dict(operator_actions.Outcome.choices), dict(Webhook.Status.choices)
    items = OperatorActionItem.objects.filter(action=action)
    failed_again = items.filter(outcome=operator_actions.Outcome.DONE, webhook__status=Webhook.Status.FAILED)
    any_failed_again = progress.current_statuses[Webhook.Status.FAILED]
    return {
        "progress": progress,
        "outcomes": [
            (progress.outcomes[outcome], labels[outcome])
            for outcome in operator_actions.Outcome
            if progress.outcomes[outcome]
        ],
        "current_statuses": [
            (count, _STATUS_LABELS.get(status) or statuses[status], status)
            for status, count in progress.current_statuses.items()
        ],
        "may_view_webhooks": may_view,
        "failed_again": _first(failed_again) if may_view and any_failed_again else [],
        "items": _first(items) if may_view else [],
    }


def _items_context(action: OperatorAction, items: ItemRows) -> dict[str, Any]:
    progress = action_progress.progress(action)
    labels = dict(operator_actions.Outcome.choices)
    return {
        "progress": progress,
        "outcomes": [(count, labels[outcome]) for outcome, count in progress.outcomes.items()],
        "is_about_items": True,
        "item_rows": items.rows,
        "refusals": items.refusals,
    }


def _deliveries_context(action: OperatorAction, *, may_view: bool) -> dict[str, Any]:
    progress = action_progress.progress(action)
    labels = dict(UnrecognizedDelivery.Outcome.choices) | {"": operator_actions.Outcome.PENDING.label}
    deliveries = action.unrecognized_deliveries.defer("body").order_by("id")
    return {
        "progress": progress,
        "outcomes": [(count, labels[outcome]) for outcome, count in progress.outcomes.items()],
        "is_about_deliveries": True,
        "deliveries": deliveries[:SHOWN_MAX] if may_view else [],
    }


def _first(items: QuerySet[OperatorActionItem]) -> list[tuple[OperatorActionItem, Webhook | None]]:
    """Return the first items with their webhooks, which may have been deleted."""
    first = list(items.order_by("id")[:SHOWN_MAX])
    webhooks = Webhook.objects.defer("body").in_bulk([item.webhook_id for item in first])
    return [(item, webhooks.get(item.webhook_id)) for item in first]
