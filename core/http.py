"""JSON responses, for successes and for every kind of failure in a view."""

from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from functools import wraps
from typing import Annotated, Any

import msgspec
import structlog
from django.core.exceptions import BadRequest, SuspiciousOperation
from django.db import DatabaseError, InterfaceError
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.views.decorators.csrf import csrf_exempt

log = structlog.get_logger(__name__)
RETRY_AFTER_SECONDS = 5
INCOMPLETE = "body: arrived incomplete, please send it again"

AwareDatetime = Annotated[datetime, msgspec.Meta(tz=True)]  # serialized with its UTC offset
View = Callable[..., HttpResponse]
AsyncView = Callable[..., Coroutine[Any, Any, HttpResponse]]
_encode = msgspec.json.Encoder(decimal_format="number").encode


class Error(msgspec.Struct):
    """A human-readable error message."""

    error: str


def json_response(data: Any, status: int = 200, **headers: str) -> HttpResponse:
    """Encode `data` as an uncacheable JSON response. Decimals become exact JSON numbers.

    Underscores in the names of `headers` become hyphens.
    """
    response = HttpResponse(_encode(data), status=status, content_type="application/json")
    response["Cache-Control"] = "no-store"
    for name, value in headers.items():
        response[name.replace("_", "-")] = value
    return response


def error_response(status: int, message: str, **headers: str) -> HttpResponse:
    return json_response(Error(message), status, **headers)


def service_unavailable(message: str) -> HttpResponse:
    """Return 503 with Retry-After: nothing is lost, and a retry can succeed."""
    return error_response(503, message, Retry_After=str(RETRY_AFTER_SECONDS))


def json_view(*methods: str) -> Callable[[View], View]:
    """Allow only `methods`, and turn every exception of the view into a JSON error.

    A database error is a 503 with Retry-After, because a retry can succeed.
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if request.method not in methods:
                return _method_not_allowed(methods)
            try:
                return view(request, *args, **kwargs)
            except Exception as exc:  # noqa: BLE001 logged there
                return _response_to(exc, request)

        return csrf_exempt(wrapper)  # none of these views authenticates by a session cookie

    return decorate


def async_json_view(*methods: str) -> Callable[[AsyncView], AsyncView]:
    """Do as json_view does, for a coroutine."""

    def decorate(view: AsyncView) -> AsyncView:
        @wraps(view)
        async def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if request.method not in methods:
                return _method_not_allowed(methods)
            try:
                return await view(request, *args, **kwargs)
            except Exception as exc:  # noqa: BLE001 logged there
                return _response_to(exc, request)

        return csrf_exempt(wrapper)

    return decorate


def _method_not_allowed(methods: Sequence[str]) -> HttpResponse:
    return error_response(405, f"use {' or '.join(methods)}", Allow=", ".join(methods))


def _response_to(exc: Exception, request: HttpRequest) -> HttpResponse:
    """Return the response to an exception that is being handled."""
    if isinstance(exc, BadRequest | SuspiciousOperation):
        return error_response(400, "malformed request")
    if isinstance(exc, UnreadablePostError):
        return service_unavailable(INCOMPLETE)
    if isinstance(exc, DatabaseError | InterfaceError):
        log.error("database error in request", path=request.path, error=repr(exc))
    else:
        log.error("request failed", path=request.path, exc_info=exc)
    return service_unavailable("temporarily unavailable, please try again")
