"""The admin's site: what all its pages share."""

from typing import Any

from django.contrib.admin import AdminSite
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, path

from backoffice import locale, sections
from backoffice.login import LoginForm, requires_second_factor
from monitoring import dashboard


class Site(AdminSite):
    site_title = "Prihod"
    site_header = "Prihod"
    enable_nav_sidebar = False  # the lists need its width
    login_form = LoginForm
    index_template = "monitoring/dashboard.html"

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        """The dashboard, for whoever may see webhooks, and below it Django's list of tables."""
        told = dashboard.context(request) if dashboard.can_view(request) else {}
        return super().index(request, {**told, **(extra_context or {})})

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        """By use on the front page; an app's own page lists its tables as Django does."""
        apps: list[Any] = super().get_app_list(request, app_label)
        return apps if app_label else sections.group_by_purpose(apps)

    def get_urls(self) -> list[URLPattern | URLResolver]:
        """Without Django's redirect to a row's page outside: no row has one, and it takes any table's key."""
        djangos = [url for url in super().get_urls() if getattr(url, "name", "") != "view_on_site"]
        return [path("time-zone/", self.admin_view(self.time_zone), name="time_zone"), *djangos]

    def time_zone(self, request: HttpRequest) -> HttpResponse:
        return locale.time_zone_page(request, self)

    def has_permission(self, request: HttpRequest) -> bool:
        """Also of who logged in before the second factor was there: not without its code."""
        user: Any = request.user  # to which django-otp's middleware adds is_verified
        return super().has_permission(request) and (user.is_verified() or not requires_second_factor(user))
