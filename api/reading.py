"""Who may read: the door of the read views."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from api import misses
from api.addresses import network_of
from api.answers import View, error
from api.keys import look_up, note_use, prefix_of
from api.models import READ_ALL, ApiKey

_ANYONE = ApiKey(name="anyone", scopes=READ_ALL)  # where READ_AUTH is none
UNAUTHORIZED = "a valid API key is needed"


class NotFound(Exception):
    """There is no such thing, or this key may not read it; the message tells not which."""


def for_readers(view: Callable[..., HttpResponse]) -> View:
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
            missed = error(401, UNAUTHORIZED, WWW_Authenticate="Bearer")
            return _limited(request, prefix_of(_token(shown or ""))) or missed
        try:
            return view(request, key, *args, **kwargs)
        except NotFound as missing:
            missed = error(404, str(missing))
            # Who may read everything learns nothing by asking.
            return missed if key.reads_all else _limited(request, key.prefix) or missed

    return guarded


def _token(authorization: str) -> str:
    """The token of a Bearer header (RFC 6750, 2.1), whose first word is of any case (RFC 9110, 11.1)."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _valid_key(authorization: str) -> ApiKey | None:
    key = look_up(_token(authorization))
    if key:
        note_use(key)
    return key


def _limited(request: HttpRequest, prefix: str | None) -> HttpResponse | None:
    callers = [str(network_of(request)), *([f"key {prefix}"] if prefix else [])]
    seconds = misses.too_many(*callers)
    return error(429, "too many requests in vain", Retry_After=str(seconds)) if seconds else None
