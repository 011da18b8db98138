"""Rate limits for password hashing: one form at a time per process, and few per minute and network.

A hash takes most of a second of CPU time, and a web process has few threads. Without these limits a few
password-guessing clients would block the bank's deliveries. django-axes' lockout of a user name doesn't help
against guesses with ever new names.
"""

import re
import threading
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from math import ceil
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils import translation
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from api.throttling import throttle_seconds
from core.client_ip import client_network
from web.notice_page import render_notice

FORMS_PER_MINUTE_MAX = 10  # per network
BUSY_SECONDS = 1
CACHED_NETWORKS_MAX = 1024
_PASSWORD_FORM = re.compile(r"/admin/(login|password_change|auth/user/add|auth/user/[^/]+/password)/")

_hashing = threading.Lock()
_throttled_until: dict[str, float] = {}  # by network, in time.monotonic()


def takes_password(method: str | None, path: str) -> bool:
    """Return whether the request may hash a password; a test checks this for every view."""
    return method == "POST" and _PASSWORD_FORM.fullmatch(path) is not None


def limit_password_forms(application: WSGIApplication) -> WSGIApplication:
    """Answer a password form 429 while its network is over the limit or this process handles another one.

    The check runs before Django, so that rejecting a flood costs next to nothing.
    """

    def wrapper(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not takes_password(environ["REQUEST_METHOD"], environ["PATH_INFO"]):
            return application(environ, start_response)
        request = WSGIRequest(environ)
        seconds = ceil(_throttled_until.get(str(client_network(request)), 0) - time.monotonic())
        if seconds > 0:
            return _send(_too_many_requests(request, seconds), start_response)
        if not _hashing.acquire(blocking=False):
            return _send(_too_many_requests(request, BUSY_SECONDS), start_response)
        try:
            return application(environ, start_response)
        finally:
            _hashing.release()

    return wrapper


class PasswordRateLimitMiddleware:
    """Count each password form by its network before any password is hashed.

    Successful forms count as well, so that the limit is independent of the outcome. Forms without a valid
    CSRF token don't count, so that another site's page can't use up a visitor's attempts.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self.get_response(request)

    def process_view(self, request: HttpRequest, *_view: object) -> HttpResponse | None:
        if not takes_password(request.method, request.path_info):
            return None
        network = str(client_network(request))
        seconds = throttle_seconds(f"password {network}", per_minute_max=FORMS_PER_MINUTE_MAX)
        if not seconds:
            return None
        if len(_throttled_until) >= CACHED_NETWORKS_MAX:
            _throttled_until.clear()
        _throttled_until[network] = time.monotonic() + seconds
        return _too_many_requests(request, seconds)


def _too_many_requests(request: HttpRequest, seconds: int) -> HttpResponse:
    response = HttpResponse(status=HTTPStatus.TOO_MANY_REQUESTS, headers={"Retry-After": str(seconds)})
    with translation.override(translation.get_language_from_request(request)):
        text = ngettext("Try again in {n} second.", "Try again in {n} seconds.", seconds)
        return render_notice(response, _("Too many login attempts"), text.format(n=seconds))


def _send(response: HttpResponse, start_response: StartResponse) -> Iterable[bytes]:
    headers = [*response.items(), ("Content-Length", str(len(response.content)))]
    start_response(f"{response.status_code} {response.reason_phrase}", headers)
    return [response.content]
