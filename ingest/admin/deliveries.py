"""Admin pages of rejected, ignored and conflicting deliveries."""

from typing import Any

from django.contrib import admin
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy

from ingest.admin import action_views
from ingest.admin.delivery_bodies import DeliveryBodyAdmin
from ingest.admin.search import matching_operation_ids
from ingest.models import ConflictingDelivery, IgnoredDelivery, OperatorAction, RejectedDelivery, Webhook
from ingest.terms_diff import field_labels


@admin.register(RejectedDelivery, IgnoredDelivery)
class RejectedDeliveryAdmin(DeliveryBodyAdmin):
    list_display = ["received_at", "source", "client_ip", "reason"]
    linked_lookups = ["received_at__gte"]
    fields = ["received_at", "source", "client_ip", "reason", "body_indented", "body_bytes"]


@admin.register(ConflictingDelivery)
class ConflictingDeliveryAdmin(DeliveryBodyAdmin):
    list_display = ["received_at", "source", "client_ip", "webhook", "differing_fields", "is_resolved"]
    list_filter = [("resolved_by", admin.EmptyFieldListFilter)]
    linked_lookups = ["received_at__gte", "webhook__exact"]
    fields = [
        "received_at", "source", "client_ip", "webhook", "differing_fields", "resolved_by", "body_indented",
        "body_bytes",
    ]  # fmt: skip
    actions = ["resolve_selected", "replace_selected"]
    change_form_template = "admin/ingest/conflictingdelivery/change_form.html"
    search_fields = ["webhook__operation_id"]
    search_help_text = gettext_lazy("operation id, ours or the bank's")

    def get_queryset(self, request: HttpRequest) -> QuerySet[ConflictingDelivery]:
        webhooks = Prefetch("webhook", Webhook.objects.defer("body"))
        return super().get_queryset(request).prefetch_related(webhooks)

    def search(self, rows: QuerySet[ConflictingDelivery], text: str) -> QuerySet[ConflictingDelivery]:
        return rows.filter(webhook__operation_id__in=matching_operation_ids(text))

    @admin.display(description=gettext_lazy("difference"))
    def differing_fields(self, delivery: ConflictingDelivery) -> str:
        return field_labels(delivery.difference)

    @admin.display(boolean=True, description=gettext_lazy("resolved"))
    def is_resolved(self, delivery: ConflictingDelivery) -> bool:
        return delivery.resolved_by_id is not None

    def has_resolve_permission(self, request: HttpRequest) -> bool:
        return action_views.has_action_permission(request.user, OperatorAction.Kind.RESOLVE)

    @admin.action(permissions=["resolve"], description=gettext_lazy("Resolve: keep the first delivery"))
    def resolve_selected(
        self, request: HttpRequest, selected: QuerySet[ConflictingDelivery]
    ) -> HttpResponse | None:
        return self._confirm(request, OperatorAction.Kind.RESOLVE, selected)

    def has_replace_permission(self, request: HttpRequest) -> bool:
        return action_views.has_action_permission(request.user, OperatorAction.Kind.REPLACE)

    @admin.action(
        permissions=["replace"], description=gettext_lazy("Reverse and replace: take the later delivery")
    )
    def replace_selected(
        self, request: HttpRequest, selected: QuerySet[ConflictingDelivery]
    ) -> HttpResponse | None:
        return self._confirm(request, OperatorAction.Kind.REPLACE, selected)

    def _confirm(
        self, request: HttpRequest, kind: OperatorAction.Kind, selected: QuerySet[ConflictingDelivery]
    ) -> HttpResponse | None:
        webhook_ids = set(selected.values_list("webhook_id", flat=True)[: action_views.SELECTED_MAX + 1])
        return action_views.confirm(request, self.admin_site, kind, webhook_ids)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        context = {**(extra_context or {}), **action_views.permission_context(request.user)}
        return super().change_view(request, object_id, form_url, context)
