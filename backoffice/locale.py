"""The language and time zone of the admin's pages, chosen per browser."""

from collections.abc import Callable
from datetime import datetime
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from django import forms
from django.conf import settings
from django.contrib.admin import AdminSite
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone, translation
from django.utils.cache import patch_vary_headers
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

ADMIN_PREFIX = "/admin/"
TIME_ZONE_COOKIE = "time_zone"  # also in monitoring/static/monitoring/time_zone.js
COOKIE_SECONDS = 365 * 24 * 3600


class SafeZoneInfo(ZoneInfo):
    """A time zone that can show every time in the ledger."""

    def fromutc(self, moment: datetime) -> datetime:
        """Fall back to UTC for a document date in the last hours of the year 9999."""
        try:
            return super().fromutc(moment)
        except OverflowError:
            return moment


@cache
def zone_names() -> frozenset[str]:
    """Return the names of all time zones, which are read from disk once."""
    return frozenset(available_timezones())


class AdminLocaleMiddleware:
    """Activates the viewer's language and time zone under /admin/.

    The time zone is that of the cookie, else TIME_ZONE; the language that of Django's cookie, else the
    browser's. Django's LocaleMiddleware would translate all requests, but API responses are always in
    English, and deliveries need not pay for the lookup.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if not request.path_info.startswith(ADMIN_PREFIX):
            return self.get_response(request)
        name = request.COOKIES.get(TIME_ZONE_COOKIE)
        zone = SafeZoneInfo(name) if name in zone_names() else None
        language = translation.get_language_from_request(request)
        # Deactivated afterwards, because this thread may handle an API request next.
        with timezone.override(zone), translation.override(language, deactivate=True):
            response = self.get_response(request)
        patch_vary_headers(response, ("Accept-Language", "Cookie"))
        response.headers.setdefault("Content-Language", language)
        return response


def _zone_choices() -> list[tuple[str, str]]:
    default = _("the browser's; without JavaScript {zone}").format(zone=settings.TIME_ZONE)
    return [("", default), *((name, name) for name in sorted(zone_names()))]


class TimeZoneForm(forms.Form):
    zone = forms.ChoiceField(label=gettext_lazy("Time zone"), required=False, choices=_zone_choices)


def time_zone_page(request: HttpRequest, site: AdminSite) -> HttpResponse:
    """Let the viewer choose the time zone, which a cookie stores."""
    form = TimeZoneForm(request.POST or None, initial={"zone": request.COOKIES.get(TIME_ZONE_COOKIE)})
    if request.method == "POST" and form.is_valid():
        return _store_time_zone(request, form.cleaned_data["zone"])
    context = {**site.each_context(request), "title": _("Time zone"), "form": form}
    return TemplateResponse(request, "admin/time_zone.html", context)


def _store_time_zone(request: HttpRequest, name: str) -> HttpResponse:
    target = request.GET.get("next", "")
    is_safe = url_has_allowed_host_and_scheme(target, {request.get_host()}, require_https=request.is_secure())
    # Not redirect(), which interprets a word as the name of a view.
    response = HttpResponseRedirect(target if is_safe else reverse("admin:index"))
    if name:
        response.set_cookie(
            TIME_ZONE_COOKIE,
            name,
            max_age=COOKIE_SECONDS,
            path=ADMIN_PREFIX,
            samesite="Lax",
            secure=request.is_secure(),
        )
    else:
        response.delete_cookie(TIME_ZONE_COOKIE, path=ADMIN_PREFIX, samesite="Lax")
    return response
