"""The admin pages of unrecognized deliveries, which may be payments: an operator has to close each."""

from datetime import timedelta
from typing import Any, cast

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from core.admin import admin_link
from ingest import operator_actions, unrecognized
from ingest.admin import action_views
from ingest.admin.delivery_bodies import DeliveryBodyAdmin
from ingest.banks.registry import ENDPOINTS_BY_NAME
from ingest.models import DEFAULT_SOURCE, OperatorAction, UnrecognizedDelivery, Webhook

SHOWN_MAX = 20
Kind = OperatorAction.Kind
_CHANGELIST = "admin:ingest_unrecognizeddelivery_changelist"
_ACTION = "admin:ingest_unrecognizeddelivery_action"
_PERMISSIONS = {
    Kind.PROCESS: "ingest.process_unrecognized",
    Kind.DISCARD: "ingest.dismiss_unrecognized",
}
_TITLES = {
    Kind.PROCESS: gettext_lazy("Process unrecognized deliveries again"),
    Kind.DISCARD: gettext_lazy("Dismiss unrecognized deliveries"),
}
_NOT_ELIGIBLE = gettext_lazy("Nothing to do: none of these deliveries is open.")


def has_action_permission(user: User | AnonymousUser, kind: Kind) -> bool:
    return user.has_perms(["ingest.view_unrecognizeddelivery", _PERMISSIONS[kind]])


class StateFilter(admin.SimpleListFilter):
    title = gettext_lazy("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        closed = [each for each in UnrecognizedDelivery.Outcome if each not in UnrecognizedDelivery.OPEN]
        return [("open", _("open")), *((each.value, each.label) for each in closed)]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[UnrecognizedDelivery]
    ) -> QuerySet[UnrecognizedDelivery]:
        state = self.value()
        if state is None:
            return queryset
        if state not in dict(self.lookup_choices):  # an action on all that match must never affect more
            raise IncorrectLookupParameters
        return queryset.filter(outcome__in=UnrecognizedDelivery.OPEN if state == "open" else [state])


class AgeFilter(admin.SimpleListFilter):
    title = gettext_lazy("received")
    parameter_name = "received"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [
            ("day", _("in the past 24 hours")),
            ("week", _("in the past 7 days")),
            ("earlier", _("earlier")),
        ]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[UnrecognizedDelivery]
    ) -> QuerySet[UnrecognizedDelivery]:
        now = timezone.now()
        match self.value():
            case None:
                return queryset
            case "day":
                return queryset.filter(received_at__gte=now - timedelta(days=1))
            case "week":
                return queryset.filter(received_at__gte=now - timedelta(days=7))
            case "earlier":
                return queryset.filter(received_at__lt=now - timedelta(days=7))
        raise IncorrectLookupParameters


class SourceFilter(admin.SimpleListFilter):
    """Filter by endpoint, as a SELECT DISTINCT of the sources would scan the table."""

    title = gettext_lazy("source")
    parameter_name = "source"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in ENDPOINTS_BY_NAME if name != DEFAULT_SOURCE]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[UnrecognizedDelivery]
    ) -> QuerySet[UnrecognizedDelivery]:
        return queryset if (source := self.value()) is None else queryset.filter(source=source)


@admin.register(UnrecognizedDelivery)
class UnrecognizedDeliveryAdmin(DeliveryBodyAdmin):
    list_display = ["received_at", "source", "client_ip", "reason", "state"]
    list_filter = [StateFilter, AgeFilter, SourceFilter]
    related_models = {"action_link": OperatorAction, "webhook_link": Webhook}
    fields = [
        "received_at", "source", "client_ip", "reason", "state", "action_link", "webhook_link",
        "body_indented", "body_bytes",
    ]  # fmt: skip
    search_fields = ["reason"]
    search_help_text = gettext_lazy("part of the reason, or the client IP")
    actions = ["process_selected", "dismiss_selected"]
    change_form_template = "admin/ingest/unrecognizeddelivery/change_form.html"

    def search(self, rows: QuerySet[UnrecognizedDelivery], text: str) -> QuerySet[UnrecognizedDelivery]:
        return rows.filter(Q(reason__icontains=text) | Q(client_ip=text))

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.action_view)
        return [path("action/<str:kind>/", view, name=_ACTION.partition(":")[2]), *super().get_urls()]

    @admin.display(description=gettext_lazy("state"))
    def state(self, delivery: UnrecognizedDelivery) -> str:
        return str(delivery.get_outcome_display())

    @admin.display(description=gettext_lazy("last operator action"))
    def action_link(self, delivery: UnrecognizedDelivery) -> str:
        action = delivery.last_action
        return admin_link(action, f"{action} — {action.by_name}: {action.reason}") if action else _("none")

    @admin.display(description=gettext_lazy("webhook"))
    def webhook_link(self, delivery: UnrecognizedDelivery) -> str:
        return admin_link(delivery.webhook, delivery.webhook) if delivery.webhook else _("none")

    def has_process_permission(self, request: HttpRequest) -> bool:
        return has_action_permission(request.user, Kind.PROCESS)

    def has_dismiss_permission(self, request: HttpRequest) -> bool:
        return has_action_permission(request.user, Kind.DISCARD)

    @admin.action(permissions=["process"], description=gettext_lazy("Process again"))
    def process_selected(
        self, request: HttpRequest, selected: QuerySet[UnrecognizedDelivery]
    ) -> HttpResponse | None:
        return self._confirm_selected(request, Kind.PROCESS, selected)

    @admin.action(permissions=["dismiss"], description=gettext_lazy("Dismiss"))
    def dismiss_selected(
        self, request: HttpRequest, selected: QuerySet[UnrecognizedDelivery]
    ) -> HttpResponse | None:
        return self._confirm_selected(request, Kind.DISCARD, selected)

    def _confirm_selected(
        self, request: HttpRequest, kind: Kind, selected: QuerySet[UnrecognizedDelivery]
    ) -> HttpResponse:
        if request.POST.get("select_across") == "1":
            query = request.GET.copy()
            query["all"] = "1"
            return redirect(f"{reverse(_ACTION, args=[kind.value])}?{query.urlencode()}")
        return self._confirm(request, kind, list(selected.values_list("id", flat=True)))

    def action_view(self, request: HttpRequest, kind: str) -> HttpResponse:
        """Show the confirmation page; a POST with a reason creates the action.

        `ids` are the primary keys of the deliveries; with `all=1` they are those that match the changelist
        filter in the URL.
        """
        if kind not in unrecognized.KINDS:
            raise Http404
        if not has_action_permission(request.user, Kind(kind)):
            raise PermissionDenied
        ids: list[int] | None = None
        if request.GET.get("all") != "1":
            submitted = action_views.submitted_ids(request.POST if request.method == "POST" else request.GET)
            ids = sorted(submitted)[: action_views.SELECTED_MAX]
        if (reason := action_views.submitted_reason(request)) is None:
            return self._confirm(request, Kind(kind), ids)
        return self._submit(request, Kind(kind), ids, reason)

    def _selected(self, request: HttpRequest, ids: list[int] | None) -> QuerySet[UnrecognizedDelivery]:
        if ids is None:
            return cast("QuerySet[UnrecognizedDelivery]", self.matching(request))
        return UnrecognizedDelivery.objects.filter(id__in_literals=ids)

    def _confirm(self, request: HttpRequest, kind: Kind, ids: list[int] | None) -> TemplateResponse:
        selected = self._selected(request, ids)
        # The digest first: a change before the next query then makes it stale, and the page is shown again.
        digest = unrecognized.state_digest(selected)
        claimable = unrecognized.claimable(selected)
        count = claimable.order_by().count()
        first = claimable.defer("body").order_by("id")[:SHOWN_MAX]
        own_url = reverse(_ACTION, args=[kind.value])
        context = {
            **self.admin_site.each_context(request),
            "title": _TITLES[kind],
            "opts": UnrecognizedDelivery._meta,
            "changelist_url": reverse(_CHANGELIST),
            "kind": kind.value,
            "eligible": count,
            "digest": digest,
            "in_background": count > unrecognized.CHUNK_DELIVERIES,
            "first": [(admin_link(delivery, delivery), delivery) for delivery in first],
            "form": action_views.ReasonForm(request.POST if "reason" in request.POST else None),
            "ids": " ".join(map(str, ids or [])),
            "form_url": request.get_full_path() if ids is None else own_url,
            "not_eligible": _NOT_ELIGIBLE,
        }
        return TemplateResponse(request, "admin/ingest/unrecognizeddelivery/confirm_action.html", context)

    def _submit(self, request: HttpRequest, kind: Kind, ids: list[int] | None, reason: str) -> HttpResponse:
        def create(by: User, confirmed: str) -> OperatorAction:
            deliveries = self._selected(request, ids)
            return operator_actions.create_for_deliveries(kind, deliveries, by, reason, confirmed)

        def confirm_again() -> HttpResponse:
            return self._confirm(request, kind, ids)

        return action_views.submit_action(request, create, confirm_again, _CHANGELIST, _NOT_ELIGIBLE)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        context = {
            **(extra_context or {}),
            "open_states": UnrecognizedDelivery.OPEN,
            "can_process": has_action_permission(request.user, Kind.PROCESS),
            "can_dismiss": has_action_permission(request.user, Kind.DISCARD),
        }
        return super().change_view(request, object_id, form_url, context)
