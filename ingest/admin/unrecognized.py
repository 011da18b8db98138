"""Unrecognized deliveries in the admin: what may be money, and what a person does about it."""

from contextlib import suppress
from datetime import timedelta
from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import PermissionDenied
from django.db import OperationalError
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from core.admin import admin_link
from core.db import lookups  # noqa: F401 registers the look-up id__in_literals
from ingest import operator_actions, unrecognized
from ingest.admin import action_views
from ingest.admin.delivery_bodies import DeliveryBodyAdmin
from ingest.banks.registry import ENDPOINTS_BY_NAME
from ingest.exceptions import NothingToDo, StaleConfirmation
from ingest.models import DEFAULT_SOURCE, OperatorAction, UnrecognizedDelivery, Webhook

SHOWN_MAX = 20
_LIST = "admin:ingest_unrecognizeddelivery_changelist"
_ACT = "admin:ingest_unrecognizeddelivery_action"
_PERMISSIONS = {
    OperatorAction.Kind.PROCESS: "ingest.process_unrecognized",
    OperatorAction.Kind.DISCARD: "ingest.dismiss_unrecognized",
}


def has_action_permission(user: User | AnonymousUser, kind: OperatorAction.Kind) -> bool:
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
        if state not in dict(self.lookup_choices):  # an act on all that match must not mean more
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
    """By the endpoints that there are: to ask the table for its sources would read the whole of it."""

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
    related_models = {"last_act": OperatorAction, "became": Webhook}
    fields = [
        "received_at", "source", "client_ip", "reason", "state", "last_act", "became", "body_indented",
        "body_bytes",
    ]  # fmt: skip
    search_fields = ["reason"]
    search_help_text = gettext_lazy("A part of the reason, or the address that it came from.")
    actions = ["process_selected", "dismiss_selected"]
    change_form_template = "admin/ingest/unrecognizeddelivery/change_form.html"

    def search(self, rows: QuerySet[UnrecognizedDelivery], text: str) -> QuerySet[UnrecognizedDelivery]:
        return rows.filter(Q(reason__icontains=text) | Q(client_ip=text))

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.action_view)
        return [path("action/<str:kind>/", view, name=_ACT.partition(":")[2]), *super().get_urls()]

    @admin.display(description=gettext_lazy("state"))
    def state(self, delivery: UnrecognizedDelivery) -> str:
        return str(delivery.get_outcome_display())

    @admin.display(description=gettext_lazy("last operator action"))
    def last_act(self, delivery: UnrecognizedDelivery) -> str:
        action = delivery.last_action
        return admin_link(action, f"{action} — {action.by_name}: {action.reason}") if action else _("none")

    @admin.display(description=gettext_lazy("webhook"))
    def became(self, delivery: UnrecognizedDelivery) -> str:
        return admin_link(delivery.webhook, delivery.webhook) if delivery.webhook else _("none")

    def has_process_permission(self, request: HttpRequest) -> bool:
        return has_action_permission(request.user, OperatorAction.Kind.PROCESS)

    def has_dismiss_permission(self, request: HttpRequest) -> bool:
        return has_action_permission(request.user, OperatorAction.Kind.DISCARD)

    @admin.action(permissions=["process"], description=gettext_lazy("Process again"))
    def process_selected(
        self, request: HttpRequest, selected: QuerySet[UnrecognizedDelivery]
    ) -> HttpResponse | None:
        return self._ask(request, OperatorAction.Kind.PROCESS, selected)

    @admin.action(permissions=["dismiss"], description=gettext_lazy("Dismiss"))
    def dismiss_selected(
        self, request: HttpRequest, selected: QuerySet[UnrecognizedDelivery]
    ) -> HttpResponse | None:
        return self._ask(request, OperatorAction.Kind.DISCARD, selected)

    def _ask(
        self, request: HttpRequest, kind: OperatorAction.Kind, selected: QuerySet[UnrecognizedDelivery]
    ) -> HttpResponse:
        query = request.GET.copy()
        if request.POST.get("select_across") == "1":
            query["all"] = "1"
            return redirect(f"{reverse(_ACT, args=[kind.value])}?{query.urlencode()}")
        return self._question(request, kind, list(selected.values_list("id", flat=True)))

    def action_view(self, request: HttpRequest, kind: str) -> HttpResponse:
        """Ask about the deliveries with the primary keys in `ids`, or with `all=1` about those that match the
        list's own query in the address. A POST with a reason begins the act.
        """
        if kind not in unrecognized.KINDS:
            raise Http404
        if not has_action_permission(request.user, OperatorAction.Kind(kind)):
            raise PermissionDenied
        ids: list[int] | None = None
        if request.GET.get("all") != "1":
            given = action_views.submitted_ids(request.POST if request.method == "POST" else request.GET)
            ids = sorted(given)[: action_views.SELECTED_MAX]
        if (reason := action_views.submitted_reason(request)) is None:
            return self._question(request, OperatorAction.Kind(kind), ids)
        return self._begin(request, OperatorAction.Kind(kind), ids, reason)

    def _meant(self, request: HttpRequest, ids: list[int] | None) -> QuerySet[UnrecognizedDelivery]:
        if ids is None:
            return cast("QuerySet[UnrecognizedDelivery]", self.matching(request))
        return UnrecognizedDelivery.objects.filter(id__in_literals=ids)

    def _question(
        self, request: HttpRequest, kind: OperatorAction.Kind, ids: list[int] | None
    ) -> TemplateResponse:
        """The page that says what the act will do, and asks for its reason."""
        meant = self._meant(request, ids)
        shown = unrecognized.state_digest(
            meant
        )  # first: what changes before the next query is asked about again
        ready = unrecognized.claimable(meant)
        count = ready.order_by().count()
        own_page = reverse(_ACT, args=[kind.value])
        context = {
            **self.admin_site.each_context(request),
            "title": {
                OperatorAction.Kind.PROCESS: _("Process unrecognized deliveries again"),
                OperatorAction.Kind.DISCARD: _("Dismiss unrecognized deliveries"),
            }[kind],
            "opts": UnrecognizedDelivery._meta,
            "kind": kind.value,
            "ready": count,
            "shown": shown,
            "in_background": count > unrecognized.CHUNK_DELIVERIES,
            "first": [
                (admin_link(each, each), each) for each in ready.defer("body").order_by("id")[:SHOWN_MAX]
            ],
            "form": action_views.ReasonForm(request.POST if "reason" in request.POST else None),
            "ids": " ".join(map(str, ids or [])),
            "action": request.get_full_path() if ids is None else own_page,
        }
        return TemplateResponse(request, "admin/ingest/unrecognizeddelivery/confirm_action.html", context)

    def _begin(
        self, request: HttpRequest, kind: OperatorAction.Kind, ids: list[int] | None, reason: str
    ) -> HttpResponse:
        """Begin the act and carry out its first chunk; then show what happened."""
        try:
            shown = request.POST.get("shown", "")
            by = cast(User, request.user)
            action = operator_actions.create_for_deliveries(
                kind, self._meant(request, ids), by, reason, shown
            )
        except NothingToDo:
            messages.warning(request, _("There is nothing to do: none of these deliveries is open."))
            return redirect(_LIST)
        except StaleConfirmation:
            messages.warning(request, _("Nothing is done yet: this has changed since the page was shown."))
            return self._question(request, kind, ids)
        with suppress(OperationalError):  # it is begun: a worker or the scheduler carries it out
            operator_actions.run_chunk(action.pk)
        return redirect("admin:ingest_operatoraction_change", action.pk)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        context = {
            **(extra_context or {}),
            "open_states": UnrecognizedDelivery.OPEN,
            "may_process": has_action_permission(request.user, OperatorAction.Kind.PROCESS),
            "may_dismiss": has_action_permission(request.user, OperatorAction.Kind.DISCARD),
        }
        return super().change_view(request, object_id, form_url, context)
