"""Who may read: the door of the read views."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from api import throttling
from api.keys import authenticate, prefix_of, record_use
from api.models import READ_ALL, ApiKey
from core.client_ip import client_network
from core.http import View, error_response

_ANYONE = ApiKey(name="anyone", scopes=READ_ALL)  # where READ_AUTH is none
UNAUTHORIZED = "a valid API key is needed"


class NotFound(Exception):
    """There is no such thing, or this key may not read it; the message tells not which."""


def require_api_key(view: Callable[..., HttpResponse]) -> View:
    """Call the view with the caller's ApiKey as its second argument.

    Without a valid key: 401. What the view raises NotFound for: 404, the same whether a thing isn't there
    or isn't the caller's. Callers that get too many of these get 429; what is answered 200 is never limited.
    """

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        shown = request.headers.get("Authorization")
        if shown is None and settings.READ_AUTH == "none":
            key: ApiKey | None = _ANYONE
        else:
            key = _valid_key(shown or "")
        if key is None:
            missed = error_response(401, UNAUTHORIZED, WWW_Authenticate="Bearer")
            return _limited(request, prefix_of(_token(shown or ""))) or missed
        try:
            return view(request, key, *args, **kwargs)
        except NotFound as missing:
            missed = error_response(404, str(missing))
            # Who may read everything learns nothing by asking.
            return missed if key.reads_all else _limited(request, key.prefix) or missed

    return guarded


def _token(authorization: str) -> str:
    """The token of a Bearer header (RFC 6750, 2.1), whose first word is of any case (RFC 9110, 11.1)."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _valid_key(authorization: str) -> ApiKey | None:
    key = authenticate(_token(authorization))
    if key:
        record_use(key)
    return key


def _limited(request: HttpRequest, prefix: str | None) -> HttpResponse | None:
    callers = [str(client_network(request)), *([f"key {prefix}"] if prefix else [])]
    seconds = throttling.throttle_seconds(*callers)
    return error_response(429, "too many failed requests", Retry_After=str(seconds)) if seconds else None
