"""In whose words and time the admin's pages are told: in the language and time zone of who looks at them."""

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
    """A time zone in which every moment can be told that the ledger may hold."""

    def fromutc(self, moment: datetime) -> datetime:
        """A document's date may lie in the last hours of the year 9999: told in UTC, not refused."""
        try:
            return super().fromutc(moment)
        except OverflowError:
            return moment


@cache
def zone_names() -> frozenset[str]:
    """Read from the disk once."""
    return frozenset(available_timezones())


class AdminLocaleMiddleware:
    """Middleware: below /admin/ times are in the zone that the cookie names, else in TIME_ZONE.

    Words are in the language of the other cookie, else of the browser. Django's LocaleMiddleware would do
    that for each request; what answers programs speaks English, and the bank's door shall not pay for it.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if not request.path_info.startswith(ADMIN_PREFIX):
            return self.get_response(request)
        name = request.COOKIES.get(TIME_ZONE_COOKIE)
        zone = SafeZoneInfo(name) if name in zone_names() else None
        language = translation.get_language_from_request(request)
        # Deactivated behind it, for this thread may answer a program next.
        with timezone.override(zone), translation.override(language, deactivate=True):
            answer = self.get_response(request)
        patch_vary_headers(answer, ("Accept-Language", "Cookie"))
        answer.headers.setdefault("Content-Language", language)
        return answer


def _choices() -> list[tuple[str, str]]:
    browsers = _("the browser's; without JavaScript {zone}").format(zone=settings.TIME_ZONE)
    return [("", browsers), *((name, name) for name in sorted(zone_names()))]


class TimeZoneForm(forms.Form):
    zone = forms.ChoiceField(label=gettext_lazy("Time zone"), required=False, choices=_choices)


def time_zone_page(request: HttpRequest, site: AdminSite) -> HttpResponse:
    """A page to choose the zone on; it is kept in a cookie of this browser."""
    form = TimeZoneForm(request.POST or None, initial={"zone": request.COOKIES.get(TIME_ZONE_COOKIE)})
    if request.method == "POST" and form.is_valid():
        return _chosen(request, form.cleaned_data["zone"])
    context = {**site.each_context(request), "title": _("Time zone"), "form": form}
    return TemplateResponse(request, "admin/time_zone.html", context)


def _chosen(request: HttpRequest, name: str) -> HttpResponse:
    back = request.GET.get("next", "")
    is_ours = url_has_allowed_host_and_scheme(back, {request.get_host()}, require_https=request.is_secure())
    # Not redirect(), which takes a word for the name of a view.
    answer = HttpResponseRedirect(back if is_ours else reverse("admin:index"))
    if name:
        answer.set_cookie(
            TIME_ZONE_COOKIE,
            name,
            max_age=COOKIE_SECONDS,
            path=ADMIN_PREFIX,
            samesite="Lax",
            secure=request.is_secure(),
        )
    else:
        answer.delete_cookie(TIME_ZONE_COOKIE, path=ADMIN_PREFIX, samesite="Lax")
    return answer
