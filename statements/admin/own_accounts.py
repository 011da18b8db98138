"""Our own bank accounts in the admin, each with the calendar of its covered days."""

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from core.admin_lookups import StrictAdmin
from core.days import DAY_MAX, DAY_MIN
from statements.admin import coverage_calendar
from statements.admin.amounts import group_account
from statements.field_values import currency_of
from statements.matching import match
from statements.models import OwnAccount

NUMBER_DIGITS = 20


class OwnAccountForm(forms.ModelForm):  # type: ignore[type-arg]  # Django's own class takes no argument
    class Meta:
        model = OwnAccount
        fields = ["number", "bank", "since", "until"]
        help_texts = {
            "number": gettext_lazy("20 digits, or an IBAN"),
            "since": gettext_lazy("the first day that is reconciled; what was before is left alone"),
            "until": gettext_lazy("the last day, of a closed account"),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for field in (self.fields[name] for name in ("since", "until") if name in self.fields):
            field.validators += [MinValueValidator(DAY_MIN), MaxValueValidator(DAY_MAX)]

    def clean_number(self) -> str:
        number = "".join(str(self.cleaned_data["number"]).split()).upper()
        is_short = number.isdigit() and len(number) != NUMBER_DIGITS
        if is_short or not (number.isalnum() and number.isascii()):
            raise ValidationError(_("An account has 20 digits, or is an IBAN."))
        return number

    def clean(self) -> dict[str, Any]:
        fields = super().clean() or {}
        since, until = fields.get("since"), fields.get("until")
        if since and until and until < since:
            raise ValidationError(_("This period ends before it begins."))
        return fields


@admin.register(OwnAccount)
class OwnAccountAdmin(StrictAdmin):
    """Rows are added and changed by operators, never deleted. The number is fixed once statements name it."""

    form = OwnAccountForm
    fields = ["number", "bank", "since", "until"]
    list_display = ["grouped_number", "bank", "currency", "since", "until", "reconciliation"]
    ordering = ["number"]
    search_fields = ["number"]
    change_form_template = "admin/statements/ownaccount/change_form.html"

    class Media:
        css = {"all": ["statements/pages.css"]}

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def get_readonly_fields(self, request: HttpRequest, obj: OwnAccount | None = None) -> Any:
        return ["number"] if obj and obj.balances.exists() else []

    def save_model(self, request: HttpRequest, obj: OwnAccount, form: Any, change: bool) -> None:  # noqa: FBT001 as in the base class
        super().save_model(request, obj, form, change)
        if form.changed_data:
            match(is_full=True)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        account: Any = self.get_object(request, object_id)
        context = {**(extra_context or {})}
        if account and self.has_view_permission(request, account):
            context |= coverage_calendar.context(account, request.GET.get("year", ""))
        return super().change_view(request, object_id, form_url, context)

    @admin.display(description=gettext_lazy("account"), ordering="number")
    def grouped_number(self, account: OwnAccount) -> str:
        return group_account(account.number)

    @admin.display(description=gettext_lazy("currency"))
    def currency(self, account: OwnAccount) -> str:
        return currency_of(account.number) or "–"

    @admin.display(description="")
    def reconciliation(self, account: OwnAccount) -> str:
        url = f"{reverse('admin:statements_reconciliation')}?account={account.pk}"
        return format_html('<a href="{}">{}</a>', url, _("Reconciliation"))
