"""Each request has an id, which all its log lines have, and which its answer names."""

import re
import secrets
from collections.abc import Iterable
from types import TracebackType
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from structlog.contextvars import bind_contextvars, clear_contextvars

HEADER = "X-Request-ID"
_SANE = re.compile(r"[0-9A-Za-z._-]{8,64}")
# W3C Trace Context, 3.2: version, trace id, the caller's span, flags.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


def request_id_middleware(application: WSGIApplication, *, trust_proxy: bool) -> WSGIApplication:
    """`application`, whose requests have an id: a new one, or with `trust_proxy` what X-Request-ID says, or
    else the trace id of traceparent, if that is sane.
    """

    def identifying(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request_id = (trust_proxy and _told(environ)) or secrets.token_hex(16)
        clear_contextvars()  # of the request that this thread had before
        bind_contextvars(request_id=request_id)

        def start(
            status: str,
            headers: list[tuple[str, str]],
            exc_info: tuple[type[BaseException], BaseException, TracebackType] | None = None,
            /,
        ) -> Any:
            return start_response(status, [*headers, (HEADER, request_id)], exc_info)

        return application(environ, start)  # type: ignore[arg-type]  # which never passes (None, None, None)

    return identifying


def _told(environ: WSGIEnvironment) -> str | None:
    told: str = environ.get("HTTP_X_REQUEST_ID", "")
    if _SANE.fullmatch(told):
        return told
    trace = _TRACEPARENT.fullmatch(environ.get("HTTP_TRACEPARENT", ""))
    return trace and trace[1]
