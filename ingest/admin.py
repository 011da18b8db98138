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

from ingest import asking, finding, grouping, rendering, story
from ingest.act_admin import ActAdmin  # noqa: F401 registers the audit trail's pages
from ingest.comparing import named
from ingest.delivered_admin import DeliveredAdmin
from ingest.models import (
    BANK,
    Act,
    ConflictingDelivery,
    IgnoredDelivery,
    RejectedDelivery,
    Verification,
    Webhook,
)
from ingest.unrecognized_admin import UnrecognizedDeliveryAdmin  # noqa: F401 registers its pages
from ledger.browsing import ReadOnlyAdmin, Viewer, link, list_link, moment_text
from ledger.models import Payment
from ledger.money import rubles_text

SHOWN_MAX = 20  # of a list inside a page
ERROR_CHARS_SHOWN = 80
DRIFT_CHARS_SHOWN = 1000  # in the list


class KindFilter(admin.SimpleListFilter):
    """Of failed and dismissed ones. It shows itself only when used: the page of failures lists the kinds."""

    title = gettext_lazy("cause of the failure")
    parameter_name = "error_kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        kind = request.GET.get(self.parameter_name)
        return [] if kind is None else [(kind, kind or _("unknown"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> QuerySet[Webhook]:
        kind = self.used_parameters.get(self.parameter_name)
        if kind is None:
            return queryset
        return queryset.filter(status__in=finding.GIVEN_UP, error_kind=kind)


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
        return finding.received_since(queryset, since)


@admin.register(Webhook)
class WebhookAdmin(DeliveredAdmin):
    list_display = [
        "operation", "source", "state", "payer_inn", "amount", "document_number", "received_at", "attempts",
        "error",
    ]  # fmt: skip
    list_filter = ["status", ReceivedFilter, KindFilter]
    fields_of = {"payment": Payment, "conflicts": ConflictingDelivery}
    change_list_template = "admin/ingest/webhook/change_list.html"
    fieldsets = [
        (None, {"fields": [
            "operation_id", "source", "known_to_the_bank_as", "state",
            "payer_inn", "amount", "document_number", "document_date",
        ]}),
        (gettext_lazy("What happened, in order"), {"fields": ["story"], "classes": ["story"]}),
        (gettext_lazy("What became of it"), {"fields": [
            "received_at", "source_address", "attempts", "next_attempt_at", "last_error", "error_kind",
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

    def find(self, rows: QuerySet[Webhook], text: str) -> QuerySet[Webhook]:
        return finding.find(rows, text)

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        return [
            path("act/<str:kind>/", wrap(self.act_view), name="ingest_webhook_act"),
            path("failures/", wrap(self.failures_view), name="ingest_webhook_failures"),
            *super().get_urls(),
        ]

    def has_replay_permission(self, request: HttpRequest) -> bool:
        return asking.may_act(request.user, Act.Kind.REPLAY)

    def has_dismiss_permission(self, request: HttpRequest) -> bool:
        return asking.may_act(request.user, Act.Kind.DISMISS)

    def has_resolve_permission(self, request: HttpRequest) -> bool:
        return asking.may_act(request.user, Act.Kind.RESOLVE)

    @admin.action(permissions=["replay"], description=gettext_lazy("Replay"))
    def replay_selected(self, request: HttpRequest, selected: QuerySet[Webhook]) -> HttpResponse | None:
        return self._ask(request, Act.Kind.REPLAY, selected)

    @admin.action(permissions=["dismiss"], description=gettext_lazy("Dismiss"))
    def dismiss_selected(self, request: HttpRequest, selected: QuerySet[Webhook]) -> HttpResponse | None:
        return self._ask(request, Act.Kind.DISMISS, selected)

    @admin.action(permissions=["resolve"], description=gettext_lazy("Resolve: the first delivery stands"))
    def resolve_selected(self, request: HttpRequest, selected: QuerySet[Webhook]) -> HttpResponse | None:
        return self._ask(request, Act.Kind.RESOLVE, selected)

    def _ask(self, request: HttpRequest, kind: Act.Kind, selected: QuerySet[Webhook]) -> HttpResponse | None:
        if request.POST.get("select_across") == "1":
            query = request.GET.copy()
            query["all"] = "1"
            return redirect(f"{reverse('admin:ingest_webhook_act', args=[kind.value])}?{query.urlencode()}")
        webhook_ids = selected.values_list("id", flat=True)[: asking.CHOSEN_MAX + 1]
        return asking.ask_about(request, self.admin_site, kind, list(webhook_ids))

    def act_view(self, request: HttpRequest, kind: str) -> HttpResponse:
        """Asks about the webhooks with the primary keys in `ids`, or with `all=1` those that match the list's
        own query in the address; a POST with a reason begins the act.
        """
        if kind not in asking.KINDS:
            raise Http404
        if not asking.may_act(request.user, Act.Kind(kind)):
            raise PermissionDenied
        if request.GET.get("all") == "1":
            return self._act_on_all(request, Act.Kind(kind))
        webhook_ids = asking.primary_keys(request.POST if request.method == "POST" else request.GET)
        reason = asking.reason_in(request)
        if reason is not None and len(webhook_ids) <= asking.CHOSEN_MAX:
            return asking.begin(request, self.admin_site, Act.Kind(kind), webhook_ids, reason)
        return asking.to_list(asking.ask_about(request, self.admin_site, Act.Kind(kind), webhook_ids))

    def _act_on_all(self, request: HttpRequest, kind: Act.Kind) -> HttpResponse:
        matching = self.matching(request)
        if (reason := asking.reason_in(request)) is None:
            return asking.ask_about_all(request, self.admin_site, kind, matching)
        return asking.begin_on_all(request, self.admin_site, kind, matching, reason)

    def failures_view(self, request: HttpRequest) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        return grouping.failures_page(request, self.admin_site, asking.may(request.user))

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        conflicts = ConflictingDelivery.objects.filter(resolved_in=None)
        has_conflict = object_id.isdecimal() and conflicts.filter(webhook_id=object_id[:18]).exists()
        context = {**(extra_context or {}), **asking.may(request.user), "has_conflict": has_conflict}
        return super().change_view(request, object_id, form_url, context)

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Webhook | None:
        webhook: Any = super().get_object(request, object_id, from_field)
        if webhook:
            webhook.viewer = request.user  # for the story, and in this Python object alone
        return cast(Webhook | None, webhook)

    def events(self, webhook: Webhook, viewer: Viewer) -> list[story.Event]:
        """What happened to it, as far as this room knows and `viewer` may see."""
        return story.told(webhook, viewer)

    @admin.display(description="")
    def story(self, webhook: Webhook) -> str:
        viewer = getattr(webhook, "viewer", AnonymousUser())
        events = story.in_order(self.events(webhook, viewer))
        return render_to_string("admin/ingest/webhook/story.html", {"events": events})

    @admin.display(description=gettext_lazy("operation"))
    def operation(self, webhook: Webhook) -> str:
        whole = str(webhook.operation_id)
        return format_html('<span title="{}">{}…</span>', whole, whole[:8])

    @admin.display(description=gettext_lazy("known to the bank as"))
    def known_to_the_bank_as(self, webhook: Webhook) -> str:
        if webhook.source == BANK:
            return _("the operation id")
        return ", ".join(finding.banks_ids(webhook)[:SHOWN_MAX]) or _(
            "a name of its own, let go of with the body"
        )

    @admin.display(description=gettext_lazy("status"))
    def state(self, webhook: Webhook) -> str:
        return format_html('<span class="state-{}">{}</span>', webhook.status, webhook.get_status_display())

    @admin.display(description=gettext_lazy("amount"))
    def amount(self, webhook: Webhook) -> str:
        return rubles_text(webhook.amount_kopecks)

    @admin.display(description=gettext_lazy("last error"))
    def error(self, webhook: Webhook) -> str:
        return Truncator(webhook.last_error).chars(ERROR_CHARS_SHOWN)

    @admin.display(description=gettext_lazy("payment in the ledger"))
    def payment(self, webhook: Webhook) -> str:
        payment = Payment.objects.filter(operation_id=webhook.operation_id).first()
        return link(payment, rubles_text(payment.amount_kopecks)) if payment else _("none")

    @admin.display(description=gettext_lazy("deliveries still kept"))
    def delivered(self, webhook: Webhook) -> str:
        repeated, conflicting = webhook.repeated_deliveries.count(), webhook.conflicting_deliveries.count()
        text = _("{all}: 1 stored, {repeated} repeated, {conflicting} conflicting")
        return text.format(all=1 + repeated + conflicting, repeated=repeated, conflicting=conflicting)

    @admin.display(description=gettext_lazy("conflicting deliveries"))
    def conflicts(self, webhook: Webhook) -> str:
        newest = webhook.conflicting_deliveries.defer("body").order_by("-id")[:SHOWN_MAX]
        lines = [(link(one, moment_text(one.received_at)), one) for one in newest]
        every = list_link(ConflictingDelivery, _("all of them"), webhook__exact=str(webhook.pk))
        shown = format_html_join("", "{}: {}<br>", lines)
        return format_html("{}{}", shown, every) if lines else _("none")


@admin.register(RejectedDelivery)
class RejectedDeliveryAdmin(DeliveredAdmin):
    list_display = ["received_at", "source", "source_address", "reason"]
    linked_lookups = ["received_at__gte"]
    fields = ["received_at", "source", "source_address", "reason", "body_indented", "body_bytes"]


@admin.register(IgnoredDelivery)
class IgnoredDeliveryAdmin(RejectedDeliveryAdmin):
    """With the same columns."""


@admin.register(ConflictingDelivery)
class ConflictingDeliveryAdmin(DeliveredAdmin):
    list_display = ["received_at", "source", "source_address", "webhook", "differing", "is_resolved"]
    list_filter = [("resolved_in", admin.EmptyFieldListFilter)]
    linked_lookups = ["received_at__gte", "webhook__exact"]
    fields = [
        "received_at", "source", "source_address", "webhook", "differing", "resolved_in", "body_indented",
        "body_bytes",
    ]  # fmt: skip
    actions = ["resolve_selected"]
    search_fields = ["webhook__operation_id"]
    search_help_text = gettext_lazy("an operation id, ours or the bank's own")

    def get_queryset(self, request: HttpRequest) -> QuerySet[ConflictingDelivery]:
        webhooks = Prefetch("webhook", Webhook.objects.defer("body"))
        return super().get_queryset(request).prefetch_related(webhooks)

    def find(self, rows: QuerySet[ConflictingDelivery], text: str) -> QuerySet[ConflictingDelivery]:
        return rows.filter(webhook__operation_id__in=finding.operations_called(text))

    @admin.display(description=gettext_lazy("difference"))
    def differing(self, delivery: ConflictingDelivery) -> str:
        return named(delivery.difference)

    @admin.display(boolean=True, description=gettext_lazy("resolved"))
    def is_resolved(self, delivery: ConflictingDelivery) -> bool:
        return delivery.resolved_in_id is not None

    def has_resolve_permission(self, request: HttpRequest) -> bool:
        return asking.may_act(request.user, Act.Kind.RESOLVE)

    @admin.action(permissions=["resolve"], description=gettext_lazy("Resolve: the first delivery stands"))
    def resolve_selected(
        self, request: HttpRequest, selected: QuerySet[ConflictingDelivery]
    ) -> HttpResponse | None:
        webhook_ids = set(selected.values_list("webhook_id", flat=True)[: asking.CHOSEN_MAX + 1])
        return asking.ask_about(request, self.admin_site, Act.Kind.RESOLVE, webhook_ids)


@admin.register(Verification)
class VerificationAdmin(ReadOnlyAdmin):
    list_display = ["ended_at", "is_whole", "result_shortly", "rows_looked_at", "took"]
    fields = ["ended_at", "is_whole", "result", "drifts_found", "rows_looked_at", "took"]
    ordering = ["-id"]

    @admin.display(description=gettext_lazy("result"))
    def result(self, verification: Verification) -> str:
        return verification.drift[: rendering.BLOCK_CHARS_MAX] or _("all is right")

    @admin.display(description=gettext_lazy("result"))
    def result_shortly(self, verification: Verification) -> str:
        return Truncator(self.result(verification)).chars(DRIFT_CHARS_SHOWN)
