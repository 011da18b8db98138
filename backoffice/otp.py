"""The admin pages of TOTP devices and backup codes, translated and reduced to what an operator decides.

django-otp marks none of its strings for translation, and shows every parameter of a TOTP device.
"""

from collections.abc import Callable
from typing import Any

from django.apps import apps
from django.contrib import admin
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, gettext_noop
from django_otp.plugins.otp_static.admin import StaticDeviceAdmin
from django_otp.plugins.otp_static.models import StaticDevice, StaticToken
from django_otp.plugins.otp_totp.admin import TOTPDeviceAdmin
from django_otp.plugins.otp_totp.models import TOTPDevice

from core.admin_lookups import StrictAdmin

APP_NAMES = {"otp_static": gettext_lazy("Backup codes"), "otp_totp": gettext_lazy("Second factors")}
MSGIDS = (
    gettext_noop("static device"),
    gettext_noop("static devices"),
    gettext_noop("static token"),
    gettext_noop("static tokens"),
    gettext_noop("TOTP device"),
    gettext_noop("TOTP devices"),
    gettext_noop("confirmed"),
    gettext_noop("created at"),
    gettext_noop("last used at"),
    gettext_noop("token"),
    gettext_noop("The user that this device belongs to."),
    gettext_noop("The human-readable name of this device."),
    gettext_noop("Is this device ready for use?"),
    gettext_noop("The date and time when this device was initially created in the system."),
    gettext_noop("The most recent date and time this device was used."),
)


class SuperuserOnlyAdmin(StrictAdmin):
    """Ignores permissions: these pages open other users' accounts."""

    def has_module_permission(self, request: HttpRequest) -> bool:
        return request.user.is_superuser

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.is_superuser

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.is_superuser

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.is_superuser

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.is_superuser


class BackupCodeAdmin(SuperuserOnlyAdmin, StaticDeviceAdmin):  # type: ignore[misc]  # django-otp has no types
    search_help_text = gettext_lazy("a user's name or e-mail address")

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        return [(None, {"fields": _fields(obj)})]


class TotpAdmin(SuperuserOnlyAdmin, TOTPDeviceAdmin):  # type: ignore[misc]  # as above
    search_help_text = BackupCodeAdmin.search_help_text

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        return [(None, {"fields": [*_fields(obj), *(["qrcode_link"] if obj else [])]})]

    def config_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        return _or_404(super().config_view, request, pk)

    def qrcode_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        return _or_404(super().qrcode_view, request, pk)

    @admin.display(description=gettext_lazy("QR code"))
    def qrcode_link(self, device: Any) -> str:
        page = reverse("admin:otp_totp_totpdevice_config", args=[device.pk])
        return format_html('<a href="{}">{}</a>', page, _("show"))


def _or_404(view: Callable[[HttpRequest, int], HttpResponse], request: HttpRequest, pk: int) -> HttpResponse:
    """Call a view of django-otp, which doesn't handle a missing device."""
    try:
        return view(request, pk)
    except TOTPDevice.DoesNotExist as exc:
        raise Http404 from exc


def _fields(device: Any) -> list[str]:
    return ["user", "name", "confirmed", *(["created_at", "last_used_at"] if device else [])]


def install_otp_admin() -> None:
    """Replace django-otp's admin pages, and make its models' strings translatable."""
    for label, name in APP_NAMES.items():
        apps.get_app_config(label).verbose_name = name
    for model in (StaticDevice, StaticToken, TOTPDevice):
        options = model._meta
        options.verbose_name = gettext_lazy(options.verbose_name)
        options.verbose_name_plural = gettext_lazy(options.verbose_name_plural)
        for field in options.fields:
            field.verbose_name = gettext_lazy(field.verbose_name)
            field.help_text = gettext_lazy(field.help_text) if field.help_text else ""
    admin.site.unregister([StaticDevice, TOTPDevice])
    admin.site.register(StaticDevice, BackupCodeAdmin)
    admin.site.register(TOTPDevice, TotpAdmin)
