"""Authentication of the API by API keys."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from api.keys import authenticate, prefix_of, record_use
from api.models import READ_ALL, ApiKey
from api.throttling import throttle_seconds
from core.client_ip import client_network
from core.http import View, error_response

_ANONYMOUS = ApiKey(name="anyone", scopes=READ_ALL)  # with READ_AUTH=none
UNAUTHORIZED = "a valid API key is needed"


class NotFound(Exception):
    """The object does not exist or is not visible to this key; deliberately indistinguishable."""


def require_api_key(view: Callable[..., HttpResponse]) -> View:
    """Pass the caller's ApiKey to the view as its second argument.

    Answer 401 without a valid key, 404 if the view raises NotFound, and 429 to callers with too many of
    these. Successful requests are never limited.
    """

    @wraps(view)
    def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        header = request.headers.get("Authorization")
        if header is None and settings.READ_AUTH == "none":
            key: ApiKey | None = _ANONYMOUS
        else:
            key = _valid_key(header or "")
        if key is None:
            denied = error_response(401, UNAUTHORIZED, WWW_Authenticate="Bearer")
            return _throttled(request, prefix_of(_token(header or ""))) or denied
        try:
            return view(request, key, *args, **kwargs)
        except NotFound as exc:
            denied = error_response(404, str(exc))
            # A key for all organizations learns nothing from a 404.
            return denied if key.reads_all else _throttled(request, key.prefix) or denied

    return wrapper


def require_scope(scope: str) -> Callable[[Callable[..., HttpResponse]], View]:
    """Pass the caller's ApiKey to the view as its second argument, also with READ_AUTH=none.

    Answer 401 without a valid key, 403 if it lacks `scope`, and 429 to callers with too many of these.
    """

    def decorate(view: Callable[..., HttpResponse]) -> View:
        @wraps(view)
        def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            header = request.headers.get("Authorization", "")
            key = _valid_key(header)
            if key is None:
                denied = error_response(401, UNAUTHORIZED, WWW_Authenticate="Bearer")
                return _throttled(request, prefix_of(_token(header))) or denied
            if not key.has_scope(scope):
                denied = error_response(403, f"this key lacks the scope {scope}")
                return _throttled(request, key.prefix) or denied
            return view(request, key, *args, **kwargs)

        return wrapper

    return decorate


def _token(authorization: str) -> str:
    """Return the bearer token (RFC 6750, 2.1); the scheme is case-insensitive (RFC 9110, 11.1)."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _valid_key(authorization: str) -> ApiKey | None:
    key = authenticate(_token(authorization))
    if key:
        record_use(key)
    return key


def _throttled(request: HttpRequest, prefix: str | None) -> HttpResponse | None:
    callers = [str(client_network(request)), *([f"key {prefix}"] if prefix else [])]
    seconds = throttle_seconds(*callers)
    return error_response(429, "too many failed requests", Retry_After=str(seconds)) if seconds else None
