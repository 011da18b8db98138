"""The admin site: front page, login, and the pages that no app owns."""

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
        """Show the dashboard to users who may see webhooks, above Django's list of tables."""
        context = dashboard.context(request) if dashboard.can_view(request) else {}
        return super().index(request, {**context, **(extra_context or {})})

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        """Group the front page by purpose; an app's own page lists its tables as Django does."""
        apps: list[Any] = super().get_app_list(request, app_label)
        return apps if app_label else sections.group_by_purpose(apps)

    def get_urls(self) -> list[URLPattern | URLResolver]:
        """Drop Django's view_on_site redirect: no row has a public page, and it accepts any table's key."""
        urls = [url for url in super().get_urls() if getattr(url, "name", "") != "view_on_site"]
        return [path("time-zone/", self.admin_view(self.time_zone), name="time_zone"), *urls]

    def time_zone(self, request: HttpRequest) -> HttpResponse:
        return locale.time_zone_page(request, self)

    def has_permission(self, request: HttpRequest) -> bool:
        """Require the second factor also in sessions that began before the user had one."""
        user: Any = request.user  # django-otp's middleware adds is_verified
        return super().has_permission(request) and (user.is_verified() or not requires_second_factor(user))
