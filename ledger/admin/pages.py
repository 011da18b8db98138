"""Read-only admin of the ledger: posting is its only writer."""

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from core.admin import ReadOnlyAdmin, admin_link
from ledger.admin import organization_page
from ledger.models import BalanceLog, Organization, Payment
from ledger.money import format_rubles
from ledger.operation_id import parse_operation_id


@admin.register(Organization)
class OrganizationAdmin(ReadOnlyAdmin):
    list_display = ["inn", "kind", "checksum", "balance", "last_seq", "opened_at"]
    ordering = ["-id"]
    search_fields = ["inn"]
    search_help_text = gettext_lazy("an INN, or @ and our account")
    change_form_template = "admin/ledger/organization/change_form.html"

    def search(self, rows: QuerySet[Organization], text: str) -> QuerySet[Organization]:
        return rows.filter(inn=text)

    @admin.display(boolean=True, description=gettext_lazy("INN checksum"))
    def checksum(self, organization: Organization) -> bool:
        return organization.inn_checksum_valid

    @admin.display(description=gettext_lazy("balance"))
    def balance(self, organization: Organization) -> str:
        return format_rubles(organization.balance_kopecks)

    def get_urls(self) -> list[URLPattern]:
        download = self.admin_site.admin_view(self.download_view)
        return [
            *(
                path(
                    f"<int:key>/statement.{file_format}",
                    download,
                    {"file_format": file_format},
                    f"ledger_organization_{file_format}",
                )
                for file_format in organization_page.FILE_FORMATS
            ),
            *super().get_urls(),
        ]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        organization = self.get_object(request, object_id)
        context = {**(extra_context or {}), "title": _("Organization")}
        if organization and self.has_view_permission(request, organization):
            context |= organization_page.context(request, organization)
        return super().change_view(request, object_id, form_url, context)

    def download_view(self, request: HttpRequest, key: int, file_format: str) -> HttpResponseBase:
        if not (self.has_view_permission(request) and organization_page.can_view_log(request)):
            raise PermissionDenied
        return organization_page.download(request, get_object_or_404(Organization, pk=key), file_format)


@admin.register(Payment)
class PaymentAdmin(ReadOnlyAdmin):
    list_display = [
        "operation_id",
        "organization",
        "amount",
        "document_number",
        "document_date",
        "created_at",
        "kind",
    ]
    fields = [
        "operation_id",
        "kind",
        "reversed_payment",
        "reversed_by",
        "organization",
        "amount",
        "document_number",
        "document_date",
        "entry",
        "created_at",
    ]
    related_models = {"entry": BalanceLog, "reversed_payment": Payment, "reversed_by": Payment}
    prefetched = ["organization"]
    linked_lookups = ["id__gte"]
    ordering = ["-id"]
    search_fields = ["operation_id", "organization__inn"]
    search_help_text = gettext_lazy("an operation id, or an organization's INN")

    def search(self, rows: QuerySet[Payment], text: str) -> QuerySet[Payment]:
        operation_id = parse_operation_id(text)
        if operation_id:
            return rows.filter(operation_id=operation_id)
        # In the order of the log, whose unique key lists the newest first.
        return rows.filter(log_entry__organization__inn=text).order_by("-log_entry__seq")

    @admin.display(description=gettext_lazy("amount"))
    def amount(self, payment: Payment) -> str:
        return format_rubles(payment.amount_kopecks)

    @admin.display(description=gettext_lazy("reversed payment"))
    def reversed_payment(self, payment: Payment) -> str:
        return admin_link(payment.reverses, payment.reverses) if payment.reverses else "–"

    @admin.display(description=gettext_lazy("reversed by"))
    def reversed_by(self, payment: Payment) -> str:
        reversal = Payment.objects.filter(reverses=payment).first()
        return admin_link(reversal, reversal) if reversal else "–"

    @admin.display(description=gettext_lazy("balance log entry"))
    def entry(self, payment: Payment) -> str:
        entry = payment.log_entry
        text = _("{entry}: {balance} after it")
        return admin_link(entry, text.format(entry=entry, balance=format_rubles(entry.balance_after_kopecks)))


@admin.register(BalanceLog)
class BalanceLogAdmin(ReadOnlyAdmin):
    list_display = ["id", "organization", "seq", "amount", "balance_after", "payment", "created_at"]
    fields = ["organization", "seq", "amount", "balance_after", "payment", "created_at"]
    prefetched = ["organization", "payment"]
    ordering = ["-id"]
    search_fields = ["payment__operation_id", "organization__inn"]
    search_help_text = gettext_lazy("an operation id, or an organization's INN")

    def search(self, rows: QuerySet[BalanceLog], text: str) -> QuerySet[BalanceLog]:
        operation_id = parse_operation_id(text)
        if operation_id:
            return rows.filter(payment__operation_id=operation_id)
        # In the order of the unique key (organization, seq).
        return rows.filter(organization__inn=text).order_by("-seq")

    @admin.display(description=gettext_lazy("amount"))
    def amount(self, entry: BalanceLog) -> str:
        return format_rubles(entry.amount_kopecks)

    @admin.display(description=gettext_lazy("balance after"))
    def balance_after(self, entry: BalanceLog) -> str:
        return format_rubles(entry.balance_after_kopecks)
