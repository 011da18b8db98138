"""The admin's site: what all its pages share."""

from typing import Any

from django.conf import settings
from django.contrib.admin import AdminSite
from django.contrib.admin.apps import AdminConfig as DjangosAdminConfig
from django.http import HttpRequest


class AdminConfig(DjangosAdminConfig):
    default_site = "config.site.Site"


class Site(AdminSite):
    site_title = "Prihod"
    site_header = f"Prihod · times in {settings.TIME_ZONE}"
    enable_nav_sidebar = False  # the lists need its width

    def __init__(self, name: str = "admin") -> None:
        super().__init__(name)
        from config.login import LoginForm  # noqa: PLC0415 - needs the models of loaded applications

        self.login_form = LoginForm

    def has_permission(self, request: HttpRequest) -> bool:
        """Also of who logged in before the second factor was there: not without its code."""
        if not super().has_permission(request):
            return False
        from config.login import second_factor_needed  # noqa: PLC0415 - as above

        user: Any = request.user  # to which django-otp's middleware adds is_verified
        return user.is_verified() or not second_factor_needed(user)
