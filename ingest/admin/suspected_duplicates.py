"""The admin pages of suspected duplicates: the queue, and both payments of a pair side by side."""

from dataclasses import dataclass
from typing import Any

from django.contrib import admin
from django.db.models import Prefetch, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.functional import Promise
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from core.admin import ReadOnlyAdmin, Viewer, admin_link, format_datetime, link_if_visible, may_view
from ingest.admin import action_views, body_rendering, search
from ingest.models import DEFAULT_SOURCE, OperatorAction, SuspectedDuplicate, Webhook
from ingest.suspected_duplicates import accounts
from ledger.inn import is_inn
from ledger.models import Payment
from ledger.money import format_rubles

Kind = OperatorAction.Kind


@dataclass(frozen=True)
class Row:
    """One property of both payments."""

    label: str | Promise
    first: str
    later: str

    @property
    def differs(self) -> bool:
        return bool(self.first and self.later) and self.first != self.later  # unknown is no difference


def compare(pair: SuspectedDuplicate, viewer: Viewer) -> list[Row]:
    """Return the properties of both payments; of the ledger what `viewer` may see."""
    first, later = _properties(pair.first, viewer), _properties(pair.webhook, viewer)
    return [Row(label, first[label], later[label]) for label in first]


def _properties(webhook: Webhook, viewer: Viewer) -> dict[str, str]:
    payer_account, account = accounts(webhook)
    is_own_id = webhook.source == DEFAULT_SOURCE
    properties = {
        _("operation id"): admin_link(webhook, webhook),
        _("bank's id"): "" if is_own_id else ", ".join(search.bank_references(webhook)),
        _("source"): webhook.source,
        _("status"): str(webhook.get_status_display()),
        _("payer INN"): webhook.payer_inn,
        _("amount"): format_rubles(webhook.amount_kopecks),
        _("document number"): webhook.document_number,
        _("document date"): format_datetime(webhook.document_date),
        _("payer's account"): payer_account,
        _("our account"): account,
        _("received"): format_datetime(webhook.received_at),
    }
    if may_view(viewer, Payment):
        properties[_("payments in the ledger")] = _payments(webhook, viewer)
    return properties


def _payments(webhook: Webhook, viewer: Viewer) -> str:
    """Return links to the operation's payment and its reversal, with their times."""
    payment = Payment.objects.filter(operation_id=webhook.operation_id).first()
    reversal = payment and Payment.objects.filter(reverses=payment).first()
    rows = [
        (link_if_visible(viewer, each, f"{sign}{format_rubles(each.amount_kopecks)}"), each)
        for sign, each in (("", payment), ("−", reversal))
        if each
    ]
    links = ((link, format_datetime(each.created_at)) for link, each in rows)
    return format_html_join(SafeString("<br>"), "{} — {}", links) or _("none")


@admin.register(SuspectedDuplicate)
class SuspectedDuplicateAdmin(ReadOnlyAdmin):
    list_display = ["found_at", "payer_inn", "amount", "document_number", "sources", "later_status", "state"]
    list_filter = ["state"]
    fields = ["found_at", "state", "decision"]
    ordering = ["-webhook"]
    actions = ["clear_selected", "confirm_selected"]
    search_fields = ["webhook__operation_id"]
    search_help_text = gettext_lazy("an operation id, ours or the bank's; an INN finds open ones")
    change_form_template = "admin/ingest/suspectedduplicate/change_form.html"

    class Media:
        css = {"all": ["ingest/admin.css"]}

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Require the permission to view webhooks, too: the pages show two of them."""
        return super().has_view_permission(request, obj) and may_view(request.user, Webhook)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return super().has_module_permission(request) and may_view(request.user, Webhook)

    def get_queryset(self, request: HttpRequest) -> QuerySet[SuspectedDuplicate]:
        rows = super().get_queryset(request)
        return rows.prefetch_related(
            *(Prefetch(name, Webhook.objects.defer("body")) for name in ("webhook", "first"))
        )

    def search(self, rows: QuerySet[SuspectedDuplicate], text: str) -> QuerySet[SuspectedDuplicate]:
        if is_inn(text):
            return rows.filter(state=SuspectedDuplicate.State.OPEN, webhook__payer_inn=text)
        found = Webhook.objects.filter(operation_id__in=search.matching_operation_ids(text))
        keys = list(found.values_list("pk", flat=True))
        return rows.filter(Q(webhook__in=keys) | Q(first__in=keys))

    def has_decide_permission(self, request: HttpRequest) -> bool:
        return action_views.has_action_permission(request.user, Kind.CLEAR)

    @admin.action(permissions=["decide"], description=gettext_lazy("Two payments"))
    def clear_selected(
        self, request: HttpRequest, selected: QuerySet[SuspectedDuplicate]
    ) -> HttpResponse | None:
        return self._confirm(request, Kind.CLEAR, selected)

    @admin.action(permissions=["decide"], description=gettext_lazy("Duplicate"))
    def confirm_selected(
        self, request: HttpRequest, selected: QuerySet[SuspectedDuplicate]
    ) -> HttpResponse | None:
        return self._confirm(request, Kind.CONFIRM, selected)

    def _confirm(
        self, request: HttpRequest, kind: Kind, selected: QuerySet[SuspectedDuplicate]
    ) -> HttpResponse | None:
        webhook_ids = set(selected.values_list("pk", flat=True)[: action_views.SELECTED_MAX + 1])
        return action_views.confirm(request, self.admin_site, kind, webhook_ids)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        pair: Any = self.get_object(request, object_id)
        context = {**(extra_context or {})}
        if pair and self.has_view_permission(request, pair):
            both = (pair.first, pair.webhook)
            context |= {
                "rows": compare(pair, request.user),
                "bodies": [body_rendering.preformatted(_body(webhook)) for webhook in both],
                "is_open": pair.state == SuspectedDuplicate.State.OPEN,
                "can_decide": self.has_decide_permission(request),
            }
        return super().change_view(request, object_id, form_url, context)

    @admin.display(description=gettext_lazy("payer INN"))
    def payer_inn(self, pair: SuspectedDuplicate) -> str:
        return pair.webhook.payer_inn

    @admin.display(description=gettext_lazy("amount"))
    def amount(self, pair: SuspectedDuplicate) -> str:
        return format_rubles(pair.webhook.amount_kopecks)

    @admin.display(description=gettext_lazy("document number"))
    def document_number(self, pair: SuspectedDuplicate) -> str:
        return pair.webhook.document_number

    @admin.display(description=gettext_lazy("sources"))
    def sources(self, pair: SuspectedDuplicate) -> str:
        return ", ".join(dict.fromkeys([pair.first.source, pair.webhook.source]))

    @admin.display(description=gettext_lazy("later webhook"))
    def later_status(self, pair: SuspectedDuplicate) -> str:
        webhook = pair.webhook
        return format_html('<span class="state-{}">{}</span>', webhook.status, webhook.get_status_display())

    @admin.display(description=gettext_lazy("decided by"))
    def decision(self, pair: SuspectedDuplicate) -> str:
        action = pair.decided_by
        return admin_link(action, f"{action} — {action.by_name}: {action.reason}") if action else _("none")


def _body(webhook: Webhook) -> str:
    if not webhook.body:
        return _("deleted after the retention period")
    return body_rendering.indent_json(bytes(webhook.body))
