"""JSON responses, for successes and for every kind of failure in a view."""

from collections.abc import Callable
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
                return error_response(405, f"use {' or '.join(methods)}", Allow=", ".join(methods))
            try:
                return view(request, *args, **kwargs)
            except (BadRequest, SuspiciousOperation):
                return error_response(400, "malformed request")
            except UnreadablePostError:
                return service_unavailable(INCOMPLETE)
            except (DatabaseError, InterfaceError) as exc:
                log.error("database error in request", path=request.path, error=repr(exc))
            except Exception:
                log.exception("request failed", path=request.path)
            return service_unavailable("temporarily unavailable, please try again")

        return csrf_exempt(wrapper)  # none of these views authenticates by a session cookie

    return decorate
