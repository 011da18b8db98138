"""What accountants see of the ledger. Nobody changes it here: posting is its only writer."""

from django.contrib import admin
from django.db.models import QuerySet
from django.utils.html import format_html_join

from ledger.browsing import ReadOnlyAdmin, link, list_link
from ledger.models import BalanceLog, Organization, Payment
from ledger.money import rubles_text
from ledger.operation_id import as_operation_id


@admin.register(Organization)
class OrganizationAdmin(ReadOnlyAdmin):
    list_display = ["inn", "checksum", "balance", "last_seq", "opened_at"]
    fields = ["inn", "checksum", "balance", "last_seq", "opened_at", "records"]
    ordering = ["-id"]
    search_fields = ["inn"]
    search_help_text = "an INN"

    def find(self, rows: QuerySet[Organization], text: str) -> QuerySet[Organization]:
        return rows.filter(inn=text)

    @admin.display(boolean=True, description="INN checksum")
    def checksum(self, organization: Organization) -> bool:
        return organization.inn_checksum_holds

    @admin.display
    def balance(self, organization: Organization) -> str:
        return rubles_text(organization.balance_kopecks)

    @admin.display
    def records(self, organization: Organization) -> str:
        lists = [(BalanceLog, "balance log"), (Payment, "payments")]
        links = [(list_link(model, name, q=organization.inn),) for model, name in lists]
        return format_html_join(" · ", "{}", links)


@admin.register(Payment)
class PaymentAdmin(ReadOnlyAdmin):
    list_display = [
        "operation_id",
        "organization",
        "amount",
        "document_number",
        "document_date",
        "created_at",
    ]
    fields = [
        "operation_id",
        "organization",
        "amount",
        "document_number",
        "document_date",
        "line",
        "created_at",
    ]
    prefetched = ["organization"]
    ordering = ["-id"]
    search_fields = ["operation_id", "organization__inn"]
    search_help_text = "an operation id, or an organization's INN"

    def find(self, rows: QuerySet[Payment], text: str) -> QuerySet[Payment]:
        operation_id = as_operation_id(text)
        if operation_id:
            return rows.filter(operation_id=operation_id)
        return rows.filter(organization__inn=text)

    @admin.display
    def amount(self, payment: Payment) -> str:
        return rubles_text(payment.amount_kopecks)

    @admin.display(description="balance log line")
    def line(self, payment: Payment) -> str:
        line = payment.log_line
        return link(line, f"{line}: {rubles_text(line.balance_after_kopecks)} after it")


@admin.register(BalanceLog)
class BalanceLogAdmin(ReadOnlyAdmin):
    list_display = ["id", "organization", "seq", "amount", "balance_after", "payment", "created_at"]
    fields = ["organization", "seq", "amount", "balance_after", "payment", "created_at"]
    prefetched = ["organization", "payment"]
    ordering = ["-id"]
    search_fields = ["payment__operation_id", "organization__inn"]
    search_help_text = "an operation id, or an organization's INN"

    def find(self, rows: QuerySet[BalanceLog], text: str) -> QuerySet[BalanceLog]:
        operation_id = as_operation_id(text)
        if operation_id:
            return rows.filter(payment__operation_id=operation_id)
        # In the order of the unique key (organization, seq).
        return rows.filter(organization__inn=text).order_by("-seq")

    @admin.display
    def amount(self, line: BalanceLog) -> str:
        return rubles_text(line.amount_kopecks)

    @admin.display(description="balance after")
    def balance_after(self, line: BalanceLog) -> str:
        return rubles_text(line.balance_after_kopecks)
