"""The admin's site: what all its pages share."""

from typing import Any

from django.conf import settings
from django.contrib.admin import AdminSite
from django.http import HttpRequest
from django.template.response import TemplateResponse

from config.login import LoginForm, second_factor_needed
from monitoring import dashboard


class Site(AdminSite):
    site_title = "Prihod"
    site_header = f"Prihod · times in {settings.TIME_ZONE}"
    enable_nav_sidebar = False  # the lists need its width
    login_form = LoginForm
    index_template = "monitoring/dashboard.html"

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        """The dashboard, for whoever may see webhooks, and below it Django's list of tables."""
        told = dashboard.context() if dashboard.may_see(request) else {}
        return super().index(request, {**told, **(extra_context or {})})

    def has_permission(self, request: HttpRequest) -> bool:
        """Also of who logged in before the second factor was there: not without its code."""
        user: Any = request.user  # to which django-otp's middleware adds is_verified
        return super().has_permission(request) and (user.is_verified() or not second_factor_needed(user))
