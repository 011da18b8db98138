"""The bank statements in the admin: list, page, and upload."""

import zlib
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy

from core.admin import may_view
from ingest.models import OperatorAction
from statements import actions
from statements.admin import acceptance, upload, verdicts
from statements.admin.action_items import action_links
from statements.admin.titled_admin import TitledAdmin
from statements.models import BankStatement, StatementBalance


@admin.register(BankStatement)
class BankStatementAdmin(TitledAdmin):
    list_display = ["file", "result", "periods", "uploaded_at", "uploaded_by"]
    list_filter = ["verdict"]
    fields = ["name"]
    ordering = ["-id"]
    prefetched = ["balances__account", "uploaded_by"]
    search_fields = ["name"]
    search_help_text = gettext_lazy("the beginning of a file's name")
    change_form_template = "admin/statements/bankstatement/change_form.html"

    class Media:
        css = {"all": ["core/admin.css", "statements/pages.css"]}

    def get_urls(self) -> list[URLPattern]:
        download = self.admin_site.admin_view(self.download_view)
        accept = self.admin_site.admin_view(self.accept_view)
        return [
            path("<int:key>/file/", download, name="statements_bankstatement_file"),
            path("<int:key>/accept/", accept, name="statements_bankstatement_accept"),
            *super().get_urls(),
        ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[BankStatement]:
        return super().get_queryset(request).defer("body")

    def search(self, rows: QuerySet[BankStatement], text: str) -> QuerySet[BankStatement]:
        return rows.filter(name__startswith=text)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("statements.add_bankstatement")

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """Upload instead of Django's form."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        return upload.upload_page(request, self.admin_site)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        statement: Any = self.get_object(request, object_id)
        context = {**(extra_context or {})}
        if statement and self.has_view_permission(request, statement):
            context |= {
                "result": verdicts.statement_context(statement),
                "can_accept": acceptance.may_accept(request.user) and actions.is_acceptable(statement),
                "history": action_links(statement) if may_view(request.user, OperatorAction) else "",
            }
        return super().change_view(request, object_id, form_url, context)

    def accept_view(self, request: HttpRequest, key: int) -> HttpResponse:
        if not self.has_view_permission(request) or not acceptance.may_accept(request.user):
            raise PermissionDenied
        statement = get_object_or_404(BankStatement.objects.defer("body"), pk=key)
        return acceptance.acceptance_page(request, self.admin_site, statement)

    def download_view(self, request: HttpRequest, key: int) -> HttpResponse:
        """Send the bytes as the bank wrote them."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        statement = get_object_or_404(BankStatement, pk=key)
        headers = {"Content-Disposition": f'attachment; filename="statement_{statement.pk}.txt"'}
        body = zlib.decompress(bytes(statement.body)) if statement.body else b""
        return HttpResponse(body, content_type="application/octet-stream", headers=headers)

    @admin.display(description=gettext_lazy("file"))
    def file(self, statement: BankStatement) -> str:
        return statement.name or f"{statement.pk}"

    @admin.display(description=gettext_lazy("result"))
    def result(self, statement: BankStatement) -> str:
        severity = verdicts.statement_severity(statement)
        return format_html('<span class="badge {}">{}</span>', severity, verdicts.verdict_label(statement))

    @admin.display(description=gettext_lazy("accounts and days"))
    def periods(self, statement: BankStatement) -> SafeString:
        rows = (
            (balance.account.number, balance.account.number[-4:], _days(balance))
            for balance in statement.balances.all()
        )
        return format_html_join(
            SafeString("<br>"), '<span class="days"><span title="{}">…{}</span> · {}</span>', rows
        )


def _days(balance: StatementBalance) -> str:
    days = [f"{day:%d.%m.%Y}" if day else "?" for day in (balance.first_day, balance.last_day)]
    return " – ".join(dict.fromkeys(days))
