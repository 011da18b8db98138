"""The admin pages of webhooks: list, detail with its timeline, failures by cause, and operator actions."""

from datetime import timedelta
from typing import Any, cast

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.loader import render_to_string
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from core.admin import admin_link, format_datetime, list_link
from ingest import correction_actions
from ingest.admin import action_views, failures, search, timeline
from ingest.admin.delivery_bodies import DeliveryBodyAdmin
from ingest.models import DEFAULT_SOURCE, ConflictingDelivery, OperatorAction, SuspectedDuplicate, Webhook
from ledger.models import Payment
from ledger.money import format_rubles

Kind = OperatorAction.Kind
SHOWN_MAX = 20  # of a list inside a page
ERROR_CHARS_SHOWN = 80


class FingerprintFilter(admin.SimpleListFilter):
    """Filter failed and dismissed webhooks. Hidden until used: the failures page lists the fingerprints."""

    title = gettext_lazy("cause of the failure")
    parameter_name = "error_fingerprint"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        fingerprint = request.GET.get(self.parameter_name)
        return [] if fingerprint is None else [(fingerprint, fingerprint or _("unknown"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> QuerySet[Webhook]:
        fingerprint = self.used_parameters.get(self.parameter_name)
        if fingerprint is None:
            return queryset
        return queryset.filter(status__in=search.FAILED_OR_DISMISSED, error_fingerprint=fingerprint)


class ReceivedFilter(admin.SimpleListFilter):
    title = gettext_lazy("received")
    parameter_name = "received"

    hours = {"hour": 1, "day": 24, "week": 7 * 24}

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [
            ("hour", _("in the past hour")),
            ("day", _("in the past 24 hours")),
            ("week", _("in the past 7 days")),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> QuerySet[Webhook]:
        if (period := self.value()) is None:
            return queryset
        if period not in self.hours:  # an action on all that match must never affect more
            raise IncorrectLookupParameters
        since = timezone.now() - timedelta(hours=self.hours[period])
        return search.received_since(queryset, since)


@admin.register(Webhook)
class WebhookAdmin(DeliveryBodyAdmin):
    list_display = [
        "operation", "source", "state", "payer_inn", "amount", "document_number", "received_at", "attempts",
        "error",
    ]  # fmt: skip
    list_filter = ["status", ReceivedFilter, FingerprintFilter]
    related_models = {"payment": Payment, "conflicts": ConflictingDelivery, "pairs": SuspectedDuplicate}
    change_list_template = "admin/ingest/webhook/change_list.html"
    fieldsets = [
        (None, {"fields": [
            "operation_id", "source", "bank_operation_id", "state",
            "payer_inn", "amount", "document_number", "document_date",
        ]}),
        (gettext_lazy("Timeline"), {"fields": ["timeline"], "classes": ["timeline"]}),
        (gettext_lazy("Processing"), {"fields": [
            "received_at", "client_ip", "attempts", "next_attempt_at", "last_error", "error_fingerprint",
            "applied_at", "payment", "pairs",
        ]}),
        (gettext_lazy("Deliveries"), {"fields": ["delivery_counts", "conflicts"]}),
        (gettext_lazy("Body"), {"fields": ["body_indented", "body_bytes"]}),
    ]  # fmt: skip
    search_fields = ["operation_id", "payer_inn"]
    search_help_text = gettext_lazy(
        "An operation id, ours or the bank's, finds any webhook. An INN, document number or amount in rubles "
        "finds failed, dismissed and held ones; an INN also the latest 200 applied. For older ones search "
        "Payments."
    )
    actions = ["replay_selected", "dismiss_selected", "resolve_selected", "reverse_selected"]

    def search(self, rows: QuerySet[Webhook], text: str) -> QuerySet[Webhook]:
        return search.search(rows, text)

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        return [
            path("action/<str:kind>/", wrap(self.action_view), name="ingest_webhook_action"),
            path("failures/", wrap(self.failures_view), name="ingest_webhook_failures"),
            *super().get_urls(),
        ]

    def has_replay_permission(self, request: HttpRequest) -> bool:
        return action_views.has_action_permission(request.user, Kind.REPLAY)

    def has_dismiss_permission(self, request: HttpRequest) -> bool:
        return action_views.has_action_permission(request.user, Kind.DISMISS)

    def has_resolve_permission(self, request: HttpRequest) -> bool:
        return action_views.has_action_permission(request.user, Kind.RESOLVE)

    def has_reverse_permission(self, request: HttpRequest) -> bool:
        return action_views.has_action_permission(request.user, Kind.REVERSE)

    @admin.action(permissions=["reverse"], description=gettext_lazy("Reverse the payment"))
    def reverse_selected(self, request: HttpRequest, selected: QuerySet[Webhook]) -> HttpResponse | None:
        return self._confirm(request, Kind.REVERSE, selected)

    @admin.action(permissions=["replay"], description=gettext_lazy("Replay"))
    def replay_selected(self, request: HttpRequest, selected: QuerySet[Webhook]) -> HttpResponse | None:
        return self._confirm(request, Kind.REPLAY, selected)

    @admin.action(permissions=["dismiss"], description=gettext_lazy("Dismiss"))
    def dismiss_selected(self, request: HttpRequest, selected: QuerySet[Webhook]) -> HttpResponse | None:
        return self._confirm(request, Kind.DISMISS, selected)

    @admin.action(permissions=["resolve"], description=gettext_lazy("Resolve: keep the first delivery"))
    def resolve_selected(self, request: HttpRequest, selected: QuerySet[Webhook]) -> HttpResponse | None:
        return self._confirm(request, Kind.RESOLVE, selected)

    def _confirm(self, request: HttpRequest, kind: Kind, selected: QuerySet[Webhook]) -> HttpResponse | None:
        if request.POST.get("select_across") == "1":
            query = request.GET.copy()
            query["all"] = "1"
            url = reverse("admin:ingest_webhook_action", args=[kind.value])
            return redirect(f"{url}?{query.urlencode()}")
        webhook_ids = selected.values_list("id", flat=True)[: action_views.SELECTED_MAX + 1]
        return action_views.confirm(request, self.admin_site, kind, list(webhook_ids))

    def action_view(self, request: HttpRequest, kind: str) -> HttpResponse:
        """Show the confirmation page; a POST with a reason creates the action.

        `ids` are the primary keys of the webhooks; with `all=1` they are those that match the changelist
        filter in the URL.
        """
        if kind not in action_views.KINDS:
            raise Http404
        if not action_views.has_action_permission(request.user, Kind(kind)):
            raise PermissionDenied
        if request.GET.get("all") == "1" and kind != Kind.ASSIGN:  # that is confirmed payment by payment
            return self._action_on_all(request, Kind(kind))
        webhook_ids = action_views.submitted_ids(request.POST if request.method == "POST" else request.GET)
        reason = action_views.submitted_reason(request)
        is_previewed = action_views.is_previewed(request, Kind(kind))
        if reason is not None and is_previewed and len(webhook_ids) <= action_views.SELECTED_MAX:
            return action_views.submit(request, self.admin_site, Kind(kind), webhook_ids, reason)
        page = action_views.confirm(request, self.admin_site, Kind(kind), webhook_ids)
        return action_views.or_changelist(page)

    def _action_on_all(self, request: HttpRequest, kind: Kind) -> HttpResponse:
        matching = self.matching(request)
        if (reason := action_views.submitted_reason(request)) is None:
            return action_views.confirm_all(request, self.admin_site, kind, matching)
        return action_views.submit_all(request, self.admin_site, kind, matching, reason)

    def failures_view(self, request: HttpRequest) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        permissions = action_views.permission_context(request.user)
        return failures.failures_page(request, self.admin_site, permissions)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        conflicts = ConflictingDelivery.objects.filter(resolved_by=None)
        has_conflict = object_id.isdecimal() and conflicts.filter(webhook_id=object_id[:18]).exists()
        permissions = action_views.permission_context(request.user)
        context = {**(extra_context or {}), **permissions, "has_conflict": has_conflict}
        applied = Webhook.objects.filter(status=Webhook.Status.APPLIED)
        webhook = applied.filter(pk=object_id[:18]).first() if object_id.isdecimal() else None
        if webhook and action_views.has_action_permission(request.user, Kind.REVERSE):
            context["corrections"] = correction_actions.possible(webhook)
        return super().change_view(request, object_id, form_url, context)

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Webhook | None:
        webhook: Any = super().get_object(request, object_id, from_field)
        if webhook:
            webhook.viewer = request.user  # for `timeline`, which gets no request
        return cast(Webhook | None, webhook)

    @admin.display(description="")
    def timeline(self, webhook: Webhook) -> str:
        viewer = getattr(webhook, "viewer", AnonymousUser())
        events = timeline.events_of(webhook, viewer)
        return render_to_string("admin/ingest/webhook/timeline.html", {"events": events})

    @admin.display(description=gettext_lazy("operation"))
    def operation(self, webhook: Webhook) -> str:
        operation_id = str(webhook.operation_id)
        return format_html('<span title="{}">{}…</span>', operation_id, operation_id[:8])

    @admin.display(description=gettext_lazy("bank's id"))
    def bank_operation_id(self, webhook: Webhook) -> str:
        if webhook.source == DEFAULT_SOURCE:
            return _("the operation id")
        return ", ".join(search.bank_references(webhook)[:SHOWN_MAX]) or _("unknown: deleted with the body")

    @admin.display(description=gettext_lazy("status"))
    def state(self, webhook: Webhook) -> str:
        return format_html('<span class="state-{}">{}</span>', webhook.status, webhook.get_status_display())

    @admin.display(description=gettext_lazy("amount"))
    def amount(self, webhook: Webhook) -> str:
        return format_rubles(webhook.amount_kopecks)

    @admin.display(description=gettext_lazy("last error"))
    def error(self, webhook: Webhook) -> str:
        return Truncator(webhook.last_error).chars(ERROR_CHARS_SHOWN)

    @admin.display(description=gettext_lazy("payment in the ledger"))
    def payment(self, webhook: Webhook) -> str:
        payment = Payment.objects.filter(operation_id=webhook.operation_id).first()
        return admin_link(payment, format_rubles(payment.amount_kopecks)) if payment else _("none")

    @admin.display(description=gettext_lazy("suspected duplicates"))
    def pairs(self, webhook: Webhook) -> str:
        as_later = SuspectedDuplicate.objects.filter(pk=webhook.pk)
        as_first = SuspectedDuplicate.objects.filter(first=webhook).order_by("pk")[:SHOWN_MAX]
        links = [
            (admin_link(pair, f"{pair}: {pair.get_state_display()}"),) for pair in (*as_later, *as_first)
        ]
        return format_html_join(SafeString("<br>"), "{}", links) or _("none")

    @admin.display(description=gettext_lazy("deliveries on record"))
    def delivery_counts(self, webhook: Webhook) -> str:
        duplicate, conflicting = webhook.duplicate_deliveries.count(), webhook.conflicting_deliveries.count()
        text = _("{all}: 1 stored, {duplicate} duplicate, {conflicting} conflicting")
        return text.format(all=1 + duplicate + conflicting, duplicate=duplicate, conflicting=conflicting)

    @admin.display(description=gettext_lazy("conflicting deliveries"))
    def conflicts(self, webhook: Webhook) -> str:
        newest = webhook.conflicting_deliveries.defer("body").order_by("-id")[:SHOWN_MAX]
        rows = [
            (admin_link(delivery, format_datetime(delivery.received_at)), delivery) for delivery in newest
        ]
        all_of_them = list_link(ConflictingDelivery, _("all of them"), webhook__exact=str(webhook.pk))
        first = format_html_join("", "{}: {}<br>", rows)
        return format_html("{}{}", first, all_of_them) if rows else _("none")
