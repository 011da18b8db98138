"""What password hashing may take of a web process: one form at a time, and few a minute from each network.

A hash takes most of a second of a processor, and a web process has few threads: without these limits a few
connections that guess passwords leave none for the bank's deliveries. The lock of each name, which
django-axes keeps, doesn't help against guesses with ever new names.
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

FORMS_PER_MINUTE_MAX = 10  # with passwords, from a network
BUSY_SECONDS = 1
NETWORKS_KNOWN_MAX = 1024
_PASSWORD_FORM = re.compile(r"/admin/(login|password_change|auth/user/add|auth/user/[^/]+/password)/")

_hashing = threading.Lock()
_refused_until: dict[str, float] = {}  # of networks over their limit, by time.monotonic()


def takes_password(method: str | None, path: str) -> bool:
    """Whether this request may hash passwords; a test goes through all views."""
    return method == "POST" and _PASSWORD_FORM.fullmatch(path) is not None


def limit_password_forms(application: WSGIApplication) -> WSGIApplication:
    """`application`, except that a password form is answered 429 while this process has another one.

    Before Django, where an answer costs next to nothing: so it costs a flood to be refused.
    """

    def endpoint(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not takes_password(environ["REQUEST_METHOD"], environ["PATH_INFO"]):
            return application(environ, start_response)
        request = WSGIRequest(environ)
        seconds = ceil(_refused_until.get(str(client_network(request)), 0) - time.monotonic())
        if seconds > 0:
            return _answered(_refusal(request, seconds), start_response)
        if not _hashing.acquire(blocking=False):
            return _answered(_refusal(request, BUSY_SECONDS), start_response)
        try:
            return application(environ, start_response)
        finally:
            _hashing.release()

    return endpoint


class PasswordRateLimitMiddleware:
    """Middleware: count each password form by the network it comes from before anything in it is hashed.

    Right or wrong, so that the limit needs to know nothing of the outcome. What lacks the CSRF token is not
    counted: another site's page can't use up a visitor's tries.
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
        if len(_refused_until) >= NETWORKS_KNOWN_MAX:
            _refused_until.clear()
        _refused_until[network] = time.monotonic() + seconds
        return _refusal(request, seconds)


def _refusal(request: HttpRequest, seconds: int) -> HttpResponse:
    answer = HttpResponse(status=HTTPStatus.TOO_MANY_REQUESTS, headers={"Retry-After": str(seconds)})
    with translation.override(translation.get_language_from_request(request)):
        text = ngettext("Try again in {n} second.", "Try again in {n} seconds.", seconds)
        return render_notice(answer, _("Too many passwords at once"), text.format(n=seconds))


def _answered(answer: HttpResponse, start_response: StartResponse) -> Iterable[bytes]:
    headers = [*answer.items(), ("Content-Length", str(len(answer.content)))]
    start_response(f"{answer.status_code} {answer.reason_phrase}", headers)
    return [answer.content]
