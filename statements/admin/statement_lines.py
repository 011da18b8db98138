"""The lines of bank statements in the admin, and the page of their reconciliation."""

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from core.admin import admin_link, may_view
from ingest.models import OperatorAction, Webhook
from ledger.models import Payment
from statements import buckets
from statements.admin import export_download, reconciliation_page, settling_page
from statements.admin.action_items import action_links
from statements.admin.amounts import group_account
from statements.admin.bucket_buttons import row_buttons
from statements.admin.line_rows import side_name, signed_amount
from statements.admin.period_form import only_line
from statements.admin.titled_admin import TitledAdmin
from statements.models import BankStatement, Bucket, StatementLine


@admin.register(StatementLine)
class StatementLineAdmin(TitledAdmin):
    list_display = ["booked_on", "number", "payer_inn", "amount", "own_account", "bucket", "is_withdrawn"]
    fields = [
        *("own_account", "side", "amount", "booked_on", "date", "number", "kind", "name"),
        *("payer_inn", "payer_account", "payee_inn", "payee_account", "purpose", "uin"),
        *("bucket", "partner", "is_withdrawn", "statements", "operator_actions", "raw_text"),
    ]
    change_form_template = "admin/statements/statementline/change_form.html"
    related_models = {
        "partner": Webhook,
        "statements": BankStatement,
        "operator_actions": OperatorAction,
    }
    prefetched = ["account"]
    ordering = ["-id"]
    search_fields = ["payer_inn"]
    search_help_text = gettext_lazy("a payer's INN")

    class Media:
        css = {"all": ["core/admin.css", "ingest/admin.css"]}

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.reconciliation_view)
        export = self.admin_site.admin_view(self.export_view)
        settle = self.admin_site.admin_view(self.settle_view)
        return [
            path("reconciliation/", view, name="statements_reconciliation"),
            path("export/", export, name="statements_export"),
            path("settle/<slug:kind>/", settle, name="statements_settle"),
            *super().get_urls(),
        ]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        line: Any = self.get_object(request, object_id)
        context = {**(extra_context or {})}
        if line and self.has_view_permission(request, line):
            choice = only_line(line)
            context |= {
                "buttons": row_buttons(request.user, Bucket(line.bucket), choice, [line.pk]),
                "reconciliation_query": choice.query(),
            }
        return super().change_view(request, object_id, form_url, context)

    def search(self, rows: QuerySet[StatementLine], text: str) -> QuerySet[StatementLine]:
        return rows.filter(inn=text)

    def reconciliation_view(self, request: HttpRequest) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = {
            **self.admin_site.each_context(request),
            "title": _("Reconciliation"),
            "opts": self.opts,
            "can_export": may_view(request.user, Payment),
            "can_upload": request.user.has_perm("statements.add_bankstatement"),
            "can_add_account": request.user.has_perm("statements.add_ownaccount"),
            "can_view_accounts": request.user.has_perm("statements.view_ownaccount"),
            **reconciliation_page.context(request),
        }
        return TemplateResponse(request, "admin/statements/reconciliation.html", context)

    def export_view(self, request: HttpRequest) -> HttpResponse:
        if not self.has_view_permission(request) or not may_view(request.user, Payment):
            raise PermissionDenied
        return export_download.download(request)

    def settle_view(self, request: HttpRequest, kind: str) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        return settling_page.settling_page(request, self.admin_site, kind)

    @admin.display(description=gettext_lazy("account"))
    def own_account(self, line: StatementLine) -> str:
        return group_account(line.account.number)

    @admin.display(description=gettext_lazy("amount"))
    def amount(self, line: StatementLine) -> str:
        return signed_amount(line)

    @admin.display(description=gettext_lazy("payer or payee"))
    def name(self, line: StatementLine) -> str:
        return side_name(line) or "–"

    @admin.display(description=gettext_lazy("webhook"))
    def partner(self, line: StatementLine) -> str:
        webhook = Webhook.objects.filter(pk__in=buckets.partners([line]).values()).first()
        return admin_link(webhook, webhook.operation_id) if webhook else "–"

    @admin.display(description=gettext_lazy("in the bank statements"))
    def statements(self, line: StatementLine) -> SafeString:
        sightings = line.sightings.select_related("statement").defer("statement__body").order_by("-pk")
        text = _("document {position}")
        return format_html_join(
            SafeString("<br>"),
            "{}, {}",
            (
                (admin_link(each.statement, each.statement), text.format(position=each.position))
                for each in sightings
            ),
        )

    @admin.display(description=gettext_lazy("operator actions"))
    def operator_actions(self, line: StatementLine) -> SafeString:
        return action_links(line)

    @admin.display(description=gettext_lazy("as in the file"))
    def raw_text(self, line: StatementLine) -> SafeString:
        return format_html('<pre class="body">{}</pre>', line.raw)
