"""The API keys in the admin: issue, list, revoke. Keys are neither edited nor deleted."""

from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from api.keys import issue, normalize_scopes, revoke
from api.models import ApiKey
from core.admin_lookups import StrictAdmin

_STATES = {
    "valid": gettext_lazy("valid"),
    "expired": gettext_lazy("expired"),
    "revoked": gettext_lazy("revoked"),
}


class ApiKeyForm(forms.ModelForm):  # type: ignore[type-arg]  # Django's own class takes no argument
    class Meta:
        model = ApiKey
        fields = ["name", "scopes", "expires_at"]

    def clean_scopes(self) -> str:
        return normalize_scopes(self.cleaned_data["scopes"])

    def clean_expires_at(self) -> Any:
        expires_at = self.cleaned_data["expires_at"]
        if expires_at and expires_at <= timezone.now():
            raise ValidationError(_("The expiry date is in the past."))
        return expires_at


@admin.register(ApiKey)
class ApiKeyAdmin(StrictAdmin):
    """Shows a new key only in the response to the form, never in a message, session, log or redirect."""

    form = ApiKeyForm
    list_display = ["name", "prefix", "state", "scopes_summary", "created_at", "expires_at", "last_used_at"]
    ordering = ["-id"]
    search_fields = ["prefix", "name"]
    search_help_text = gettext_lazy("a prefix or a name")
    actions = ["revoke_selected"]
    issued_template = "admin/api/apikey/issued.html"
    revoke_template = "admin/api/apikey/revoke.html"

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        if obj is None:
            return ["name", "scopes", "expires_at"]
        times = ["created_at", "expires_at", "last_used_at", "revoked_at"]
        return ["name", "prefix", "state", "scopes", *times]

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        return [] if obj is None else self.get_fields(request, obj)

    def has_change_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        return False

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perms(["api.view_apikey", "api.revoke_apikey"])

    def save_form(self, request: HttpRequest, form: Any, change: bool) -> ApiKey:  # noqa: FBT001 as in the base class
        """Save the row here, because the key exists only while `issue` creates it."""
        row, key = issue(**form.cleaned_data)
        cast(Any, row).issued_key = key  # for response_add, in this Python object only
        return row

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:  # noqa: FBT001 as above
        """Do nothing: save_form has saved the row."""

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:  # noqa: FBT001 as above
        """Do nothing: there are no related rows."""

    def response_add(
        self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None
    ) -> HttpResponse:
        context = {**self._context(request), "title": _("New API key"), "row": obj}
        return TemplateResponse(request, self.issued_template, context)

    @admin.action(permissions=["revoke"], description=gettext_lazy("Revoke"))
    def revoke_selected(self, request: HttpRequest, selected: QuerySet[ApiKey]) -> HttpResponse | None:
        """Show a confirmation page first; its button posts the same action again."""
        unrevoked = list(selected.filter(revoked_at=None))
        if "confirmed" not in request.POST:
            context = {**self._context(request), "title": _("Revoke API keys"), "rows": unrevoked}
            return TemplateResponse(request, self.revoke_template, context)
        revoked = [row for row in unrevoked if revoke(row.prefix)]
        for row in revoked:
            # In this form Django translates the message into the language of each viewer of the history.
            self.log_change(request, row, [{"changed": {"fields": ["revoked"]}}])
        text = ngettext("Revoked {n} key.", "Revoked {n} keys.", len(revoked))
        messages.success(request, text.format(n=len(revoked)))
        return None

    def _context(self, request: HttpRequest) -> dict[str, Any]:
        return {**self.admin_site.each_context(request), "opts": self.opts}

    @admin.display(description=gettext_lazy("state"))
    def state(self, row: ApiKey) -> str:
        return str(_STATES[row.state(timezone.now())])

    @admin.display(description=gettext_lazy("scopes"))
    def scopes_summary(self, row: ApiKey) -> str:
        first, *others = row.scopes.split()
        text = ngettext("{first} and {n} more", "{first} and {n} more", len(others))
        return text.format(first=first, n=len(others)) if others else first
