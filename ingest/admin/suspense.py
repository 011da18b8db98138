"""The admin pages of the payments in suspense, from which an operator assigns them to organizations."""

from collections.abc import Collection
from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from core.admin import IndexedChangeList, admin_link
from ingest.admin import action_views
from ingest.banks.registry import ENDPOINTS_BY_NAME
from ingest.models import OperatorAction, Webhook
from ledger.admin.pages import PaymentAdmin
from ledger.corrections import first_operations
from ledger.models import Organization, UnassignedPayment
from ledger.suspense import unassigned, waiting_payments

ASSIGN = OperatorAction.Kind.ASSIGN
FILTERED_MAX = 10_000  # payments whose source is looked up for the filter


def webhooks_of(payment_ids: Collection[int]) -> dict[int, Webhook]:
    """Return the webhook of each payment, by the payment's key: of a replacement, that of the first one."""
    operations = first_operations(payment_ids)
    webhooks = Webhook.objects.filter(operation_id__in=set(operations.values())).defer("body")
    by_operation = {webhook.operation_id: webhook for webhook in webhooks}
    return {pk: by_operation[each] for pk, each in operations.items() if each in by_operation}


def _waiting_webhook(key: int) -> Webhook | None:
    """Return the webhook of a payment that waits in suspense; None for another one, or without a webhook."""
    return webhooks_of([key]).get(key) if waiting_payments().filter(pk=key).exists() else None


class AgeFilter(admin.SimpleListFilter):
    title = gettext_lazy("time in suspense")
    parameter_name = "age"

    days = {"day": 1, "five": 5, "month": 30}

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [
            ("day", _("for more than a day")),
            ("five", _("for more than 5 days")),
            ("month", _("for more than 30 days")),
        ]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[UnassignedPayment]
    ) -> QuerySet[UnassignedPayment]:
        if (age := self.value()) is None:
            return queryset
        if age not in self.days:  # an action on all that match must never affect more
            raise IncorrectLookupParameters
        return queryset.filter(created_at__lt=timezone.now() - timedelta(days=self.days[age]))


class AccountFilter(admin.SimpleListFilter):
    title = gettext_lazy("account")
    parameter_name = "account"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        accounts = Organization.objects.filter(kind=Organization.Kind.SUSPENSE).order_by("inn")
        return [(key, key) for key in accounts.values_list("inn", flat=True)]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[UnassignedPayment]
    ) -> QuerySet[UnassignedPayment]:
        return queryset if (key := self.value()) is None else queryset.filter(organization__inn=key)


class SourceFilter(admin.SimpleListFilter):
    title = gettext_lazy("source")
    parameter_name = "source"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in ENDPOINTS_BY_NAME]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[UnassignedPayment]
    ) -> QuerySet[UnassignedPayment]:
        """Look the sources up, as a payment does not say it, and a replacement has no webhook of its own."""
        if (source := self.value()) is None:
            return queryset
        webhooks = webhooks_of(list(queryset.order_by("pk").values_list("pk", flat=True)[:FILTERED_MAX]))
        return queryset.filter(pk__in=[pk for pk, webhook in webhooks.items() if webhook.source == source])


class UnassignedChangeList(IndexedChangeList):
    def get_results(self, request: HttpRequest) -> None:
        """Add its webhook to each row of the page."""
        super().get_results(request)
        rows: Any = list(self.result_list)
        webhooks = webhooks_of([row.pk for row in rows])
        for row in rows:
            row.webhook = webhooks.get(row.pk)
        self.result_list = rows


@admin.register(UnassignedPayment)
class UnassignedPaymentAdmin(PaymentAdmin):
    """The payments in suspense that wait for an organization, oldest first."""

    list_display = ["created_at", "age", "amount", "account", "source", "document", "operation"]
    list_filter = [AgeFilter, AccountFilter, SourceFilter]
    ordering = ["id"]
    search_fields = ["operation_id"]
    search_help_text = gettext_lazy("an operation id")
    actions = ["assign_selected"]
    change_form_template = "admin/ledger/unassignedpayment/change_form.html"

    class Media:
        css = {"all": ["ingest/admin.css"]}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Begin with the first payment that waits: what was assigned before it is not read."""
        first = unassigned().first_pk
        rows = waiting_payments().filter(pk__gte=first) if first else waiting_payments().none()
        return rows.prefetch_related(*self.prefetched)

    def search(self, rows: QuerySet[Any], text: str) -> QuerySet[Any]:
        return super().search(rows, text).order_by("id")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return UnassignedChangeList

    def get_list_display(self, request: HttpRequest) -> Any:
        return [*self.list_display, *(["assign"] if self.has_assign_permission(request) else [])]

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.assign_view)
        return [path("<int:key>/assign/", view, name="ledger_unassignedpayment_assign"), *super().get_urls()]

    def has_assign_permission(self, request: HttpRequest) -> bool:
        return action_views.has_action_permission(request.user, ASSIGN)

    @admin.action(permissions=["assign"], description=gettext_lazy("Assign to an organization"))
    def assign_selected(
        self, request: HttpRequest, selected: QuerySet[UnassignedPayment]
    ) -> HttpResponse | None:
        payment_ids = list(selected.values_list("pk", flat=True)[: action_views.SELECTED_MAX + 1])
        webhook_ids = {webhook.pk for webhook in webhooks_of(payment_ids).values()}
        return action_views.confirm(request, self.admin_site, ASSIGN, webhook_ids)

    def assign_view(self, request: HttpRequest, key: int) -> HttpResponse:
        """Redirect to the confirmation of the payment's assignment."""
        if not self.has_assign_permission(request):
            raise PermissionDenied
        webhook = _waiting_webhook(key)
        if webhook is None:
            raise Http404
        return redirect(f"{reverse('admin:ingest_webhook_action', args=[ASSIGN.value])}?ids={webhook.pk}")

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        can_assign = self.has_assign_permission(request) and object_id.isdecimal()
        can_assign = can_assign and _waiting_webhook(int(object_id)) is not None
        context = {**(extra_context or {}), "can_assign": can_assign}
        return super().change_view(request, object_id, form_url, context)

    @admin.display(description=gettext_lazy("days in suspense"))
    def age(self, payment: UnassignedPayment) -> int:
        return max((timezone.now() - payment.created_at).days, 0)

    @admin.display(description=gettext_lazy("account"))
    def account(self, payment: UnassignedPayment) -> str:
        """Return the account's last digits; the filter has all of them."""
        key = payment.organization.inn
        return format_html('<span title="{}">{}</span>', key, f"…{key[-4:]}" if key[-4:].isdecimal() else key)

    @admin.display(description=gettext_lazy("source"))
    def source(self, payment: Any) -> str:
        return payment.webhook.source if payment.webhook else "–"

    @admin.display(description=gettext_lazy("document"))
    def document(self, payment: UnassignedPayment) -> str:
        text = _("No. {number} of {date}")
        day = timezone.localtime(payment.document_date)
        return text.format(number=payment.document_number, date=f"{day:%d.%m.%Y}")

    @admin.display(description=gettext_lazy("webhook"))
    def operation(self, payment: Any) -> str:
        """Link to the webhook, whose body says more about the payer."""
        operation_id = str(payment.operation_id)
        return admin_link(payment.webhook, f"{operation_id[:8]}…") if payment.webhook else operation_id

    @admin.display(description="")
    def assign(self, payment: Any) -> str:
        if payment.webhook is None:
            return ""
        url = reverse("admin:ledger_unassignedpayment_assign", args=[payment.pk])
        return format_html('<a class="button" href="{}">{}</a>', url, _("Assign"))
