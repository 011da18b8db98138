"""The inbox in the admin: what the bank told us, what became of it, and what a person can do about it."""

from datetime import timedelta
from typing import Any, cast

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied
from django.db.models import Prefetch, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.loader import render_to_string
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from core.admin import ReadOnlyAdmin, Viewer, admin_link, format_datetime, list_link
from ingest.admin import action_views, body_rendering, failures, search, timeline
from ingest.admin.delivery_bodies import DeliveryBodyAdmin
from ingest.admin.operator_actions import OperatorActionAdmin  # noqa: F401 registers the audit trail's pages
from ingest.admin.unrecognized import UnrecognizedDeliveryAdmin  # noqa: F401 registers its pages
from ingest.models import (
    DEFAULT_SOURCE,
    ConflictingDelivery,
    IgnoredDelivery,
    LedgerVerification,
    OperatorAction,
    RejectedDelivery,
    Webhook,
)
from ingest.terms_diff import field_labels
from ledger.models import Payment
from ledger.money import format_rubles

SHOWN_MAX = 20  # of a list inside a page
ERROR_CHARS_SHOWN = 80
DRIFT_CHARS_SHOWN = 1000  # in the list


class FingerprintFilter(admin.SimpleListFilter):
    """Of failed and dismissed ones. It shows itself only when used: the page of failures lists the kinds."""

    title = gettext_lazy("cause of the failure")
    parameter_name = "error_fingerprint"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        kind = request.GET.get(self.parameter_name)
        return [] if kind is None else [(kind, kind or _("unknown"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> QuerySet[Webhook]:
        kind = self.used_parameters.get(self.parameter_name)
        if kind is None:
            return queryset
        return queryset.filter(status__in=search.FAILED_OR_DISMISSED, error_fingerprint=kind)


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
        if period not in self.hours:  # an act on all that match must not mean more than the person thinks
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
    related_models = {"payment": Payment, "conflicts": ConflictingDelivery}
    change_list_template = "admin/ingest/webhook/change_list.html"
    fieldsets = [
        (None, {"fields": [
            "operation_id", "source", "known_to_the_bank_as", "state",
            "payer_inn", "amount", "document_number", "document_date",
        ]}),
        (gettext_lazy("What happened, in order"), {"fields": ["timeline_html"], "classes": ["timeline"]}),
        (gettext_lazy("What became of it"), {"fields": [
            "received_at", "client_ip", "attempts", "next_attempt_at", "last_error", "error_fingerprint",
            "applied_at", "payment",
        ]}),
        (gettext_lazy("Deliveries"), {"fields": ["delivered", "conflicts"]}),
        (gettext_lazy("As the bank sent it"), {"fields": ["body_indented", "body_bytes"]}),
    ]  # fmt: skip
    search_fields = ["operation_id", "payer_inn"]
    search_help_text = gettext_lazy(
        "An operation id, ours or the bank's own, finds any webhook. An INN, a document number or an amount "
        "in rubles finds failed and dismissed ones; an INN also the newest 200 that were applied. For older "
        "ones look in Payments."
    )
    actions = ["replay_selected", "dismiss_selected", "resolve_selected"]

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
        return action_views.has_action_permission(request.user, OperatorAction.Kind.REPLAY)

    def has_dismiss_permission(self, request: HttpRequest) -> bool:
        return action_views.has_action_permission(request.user, OperatorAction.Kind.DISMISS)

    def has_resolve_permission(self, request: HttpRequest) -> bool:
        return action_views.has_action_permission(request.user, OperatorAction.Kind.RESOLVE)

    @admin.action(permissions=["replay"], description=gettext_lazy("Replay"))
    def replay_selected(self, request: HttpRequest, selected: QuerySet[Webhook]) -> HttpResponse | None:
        return self._ask(request, OperatorAction.Kind.REPLAY, selected)

    @admin.action(permissions=["dismiss"], description=gettext_lazy("Dismiss"))
    def dismiss_selected(self, request: HttpRequest, selected: QuerySet[Webhook]) -> HttpResponse | None:
        return self._ask(request, OperatorAction.Kind.DISMISS, selected)

    @admin.action(permissions=["resolve"], description=gettext_lazy("Resolve: the first delivery stands"))
    def resolve_selected(self, request: HttpRequest, selected: QuerySet[Webhook]) -> HttpResponse | None:
        return self._ask(request, OperatorAction.Kind.RESOLVE, selected)

    def _ask(
        self, request: HttpRequest, kind: OperatorAction.Kind, selected: QuerySet[Webhook]
    ) -> HttpResponse | None:
        if request.POST.get("select_across") == "1":
            query = request.GET.copy()
            query["all"] = "1"
            return redirect(
                f"{reverse('admin:ingest_webhook_action', args=[kind.value])}?{query.urlencode()}"
            )
        webhook_ids = selected.values_list("id", flat=True)[: action_views.SELECTED_MAX + 1]
        return action_views.confirm(request, self.admin_site, kind, list(webhook_ids))

    def action_view(self, request: HttpRequest, kind: str) -> HttpResponse:
        """Asks about the webhooks with the primary keys in `ids`, or with `all=1` those that match the list's
        own query in the address; a POST with a reason begins the act.
        """
        if kind not in action_views.KINDS:
            raise Http404
        if not action_views.has_action_permission(request.user, OperatorAction.Kind(kind)):
            raise PermissionDenied
        if request.GET.get("all") == "1":
            return self._act_on_all(request, OperatorAction.Kind(kind))
        webhook_ids = action_views.submitted_ids(request.POST if request.method == "POST" else request.GET)
        reason = action_views.submitted_reason(request)
        if reason is not None and len(webhook_ids) <= action_views.SELECTED_MAX:
            return action_views.submit(
                request, self.admin_site, OperatorAction.Kind(kind), webhook_ids, reason
            )
        return action_views.or_changelist(
            action_views.confirm(request, self.admin_site, OperatorAction.Kind(kind), webhook_ids)
        )

    def _act_on_all(self, request: HttpRequest, kind: OperatorAction.Kind) -> HttpResponse:
        matching = self.matching(request)
        if (reason := action_views.submitted_reason(request)) is None:
            return action_views.confirm_all(request, self.admin_site, kind, matching)
        return action_views.submit_all(request, self.admin_site, kind, matching, reason)

    def failures_view(self, request: HttpRequest) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        return failures.failures_page(request, self.admin_site, action_views.permission_context(request.user))

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        conflicts = ConflictingDelivery.objects.filter(resolved_by=None)
        has_conflict = object_id.isdecimal() and conflicts.filter(webhook_id=object_id[:18]).exists()
        context = {
            **(extra_context or {}),
            **action_views.permission_context(request.user),
            "has_conflict": has_conflict,
        }
        return super().change_view(request, object_id, form_url, context)

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Webhook | None:
        webhook: Any = super().get_object(request, object_id, from_field)
        if webhook:
            webhook.viewer = request.user  # for the story, and in this Python object alone
        return cast(Webhook | None, webhook)

    def events(self, webhook: Webhook, viewer: Viewer) -> list[timeline.TimelineEvent]:
        """What happened to it, as far as this room knows and `viewer` may see."""
        return timeline.events_of(webhook, viewer)

    @admin.display(description="")
    def timeline_html(self, webhook: Webhook) -> str:
        viewer = getattr(webhook, "viewer", AnonymousUser())
        events = timeline.chronological(self.events(webhook, viewer))
        return render_to_string("admin/ingest/webhook/timeline.html", {"events": events})

    @admin.display(description=gettext_lazy("operation"))
    def operation(self, webhook: Webhook) -> str:
        whole = str(webhook.operation_id)
        return format_html('<span title="{}">{}…</span>', whole, whole[:8])

    @admin.display(description=gettext_lazy("known to the bank as"))
    def known_to_the_bank_as(self, webhook: Webhook) -> str:
        if webhook.source == DEFAULT_SOURCE:
            return _("the operation id")
        return ", ".join(search.bank_references(webhook)[:SHOWN_MAX]) or _(
            "a name of its own, let go of with the body"
        )

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

    @admin.display(description=gettext_lazy("deliveries still kept"))
    def delivered(self, webhook: Webhook) -> str:
        repeated, conflicting = webhook.duplicate_deliveries.count(), webhook.conflicting_deliveries.count()
        text = _("{all}: 1 stored, {repeated} repeated, {conflicting} conflicting")
        return text.format(all=1 + repeated + conflicting, repeated=repeated, conflicting=conflicting)

    @admin.display(description=gettext_lazy("conflicting deliveries"))
    def conflicts(self, webhook: Webhook) -> str:
        newest = webhook.conflicting_deliveries.defer("body").order_by("-id")[:SHOWN_MAX]
        lines = [(admin_link(one, format_datetime(one.received_at)), one) for one in newest]
        every = list_link(ConflictingDelivery, _("all of them"), webhook__exact=str(webhook.pk))
        shown = format_html_join("", "{}: {}<br>", lines)
        return format_html("{}{}", shown, every) if lines else _("none")


@admin.register(RejectedDelivery)
class RejectedDeliveryAdmin(DeliveryBodyAdmin):
    list_display = ["received_at", "source", "client_ip", "reason"]
    linked_lookups = ["received_at__gte"]
    fields = ["received_at", "source", "client_ip", "reason", "body_indented", "body_bytes"]


@admin.register(IgnoredDelivery)
class IgnoredDeliveryAdmin(RejectedDeliveryAdmin):
    """With the same columns."""


@admin.register(ConflictingDelivery)
class ConflictingDeliveryAdmin(DeliveryBodyAdmin):
    list_display = ["received_at", "source", "client_ip", "webhook", "differing", "is_resolved"]
    list_filter = [("resolved_by", admin.EmptyFieldListFilter)]
    linked_lookups = ["received_at__gte", "webhook__exact"]
    fields = [
        "received_at", "source", "client_ip", "webhook", "differing", "resolved_by", "body_indented",
        "body_bytes",
    ]  # fmt: skip
    actions = ["resolve_selected"]
    search_fields = ["webhook__operation_id"]
    search_help_text = gettext_lazy("an operation id, ours or the bank's own")

    def get_queryset(self, request: HttpRequest) -> QuerySet[ConflictingDelivery]:
        webhooks = Prefetch("webhook", Webhook.objects.defer("body"))
        return super().get_queryset(request).prefetch_related(webhooks)

    def search(self, rows: QuerySet[ConflictingDelivery], text: str) -> QuerySet[ConflictingDelivery]:
        return rows.filter(webhook__operation_id__in=search.matching_operation_ids(text))

    @admin.display(description=gettext_lazy("difference"))
    def differing(self, delivery: ConflictingDelivery) -> str:
        return field_labels(delivery.difference)

    @admin.display(boolean=True, description=gettext_lazy("resolved"))
    def is_resolved(self, delivery: ConflictingDelivery) -> bool:
        return delivery.resolved_by_id is not None

    def has_resolve_permission(self, request: HttpRequest) -> bool:
        return action_views.has_action_permission(request.user, OperatorAction.Kind.RESOLVE)

    @admin.action(permissions=["resolve"], description=gettext_lazy("Resolve: the first delivery stands"))
    def resolve_selected(
        self, request: HttpRequest, selected: QuerySet[ConflictingDelivery]
    ) -> HttpResponse | None:
        webhook_ids = set(selected.values_list("webhook_id", flat=True)[: action_views.SELECTED_MAX + 1])
        return action_views.confirm(request, self.admin_site, OperatorAction.Kind.RESOLVE, webhook_ids)


@admin.register(LedgerVerification)
class VerificationAdmin(ReadOnlyAdmin):
    list_display = ["ended_at", "is_full", "result_shortly", "rows_scanned", "duration"]
    fields = ["ended_at", "is_full", "result", "drifts_found", "rows_scanned", "duration"]
    ordering = ["-id"]

    @admin.display(description=gettext_lazy("result"))
    def result(self, verification: LedgerVerification) -> str:
        return verification.drift[: body_rendering.BLOCK_CHARS_MAX] or _("all is right")

    @admin.display(description=gettext_lazy("result"))
    def result_shortly(self, verification: LedgerVerification) -> str:
        return Truncator(self.result(verification)).chars(DRIFT_CHARS_SHOWN)
