"""An id for each request, in all of its log lines and in its response."""

import random
import re
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from structlog.contextvars import bind_contextvars, clear_contextvars

HEADER = "X-Request-ID"
_VALID = re.compile(r"[0-9A-Za-z._-]{8,64}")
# W3C Trace Context, 3.2: version, trace id, the caller's span, flags.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


def request_id_middleware(application: WSGIApplication, *, trust_proxy: bool) -> WSGIApplication:
    """Add a request id to the log context and the response.

    With `trust_proxy` the id is a valid X-Request-ID, or else the trace id of a valid traceparent; in all
    other cases it is new.
    """

    def wrapper(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        identifier = request_id(environ, trust_proxy=trust_proxy)
        clear_contextvars()  # of this thread's previous request
        bind_contextvars(request_id=identifier)

        def start(
            status: str,
            headers: list[tuple[str, str]],
            exc_info: tuple[type[BaseException], BaseException, TracebackType] | None = None,
            /,
        ) -> Any:
            return start_response(status, [*headers, (HEADER, identifier)], exc_info)

        return application(environ, start)  # type: ignore[arg-type]  # which never passes (None, None, None)

    return wrapper


def request_id(environ: Mapping[str, Any], *, trust_proxy: bool) -> str:
    """Return the id of the request with these headers.

    A new one is no secret. The system's random numbers would release the GIL, and the thread of the group
    commit would take it and find half as many deliveries.
    """
    return (trust_proxy and _from_headers(environ)) or f"{random.getrandbits(128):032x}"


def _from_headers(environ: Mapping[str, Any]) -> str | None:
    identifier: str = environ.get("HTTP_X_REQUEST_ID", "")
    if _VALID.fullmatch(identifier):
        return identifier
    trace = _TRACEPARENT.fullmatch(environ.get("HTTP_TRACEPARENT", ""))
    return trace and trace[1]
