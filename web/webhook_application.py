"""The webhook endpoint as an ASGI application of its own, in front of all others.

Django's ASGI handler would take a thread, several signals and a database connection for each delivery. Here a
delivery costs a request object, the view's coroutine and a response. docs/architecture.md lists what replaces
Django's middleware.
"""

from collections.abc import Callable
from functools import partial
from inspect import iscoroutinefunction
from io import BytesIO

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpResponse
from django.middleware.clickjacking import XFrameOptionsMiddleware
from django.middleware.security import SecurityMiddleware
from django.urls import is_valid_path, resolve
from structlog.contextvars import bind_contextvars, clear_contextvars

from core.http import AsyncView, error_response
from ingest.banks.registry import ENDPOINTS
from ingest.exceptions import BodyTooLong, LengthRequired
from ingest.views import body_length
from web.buffered_bodies import Application, Message, Receive, Send, receive_body
from web.request_id import HEADER, request_id

Headers = list[tuple[bytes, bytes]]
_REQUEST_ID = HEADER.lower().encode()
Observe = Callable[[AsyncView, str], AsyncView]


def _unobserved(view: AsyncView, _route: str) -> AsyncView:
    return view


class WebhookApplication:
    """Answers deliveries, and passes all other requests to `other`."""

    def __init__(self, other: Application, *, observe: Observe = _unobserved, trust_proxy: bool) -> None:
        """`observe` wraps the view of a route, such as by a trace."""
        self._other = other
        self._views = coroutines_by_path(observe)
        self._trust_proxy = trust_proxy
        self._security_headers: dict[bool, Headers] = {}  # by whether the request came over TLS

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        view = self._views.get(scope["path"]) if scope["type"] == "http" else None
        if view is None:
            await self._other(_without_ambiguous_headers(scope), receive, send)
            return
        clear_contextvars()
        try:
            response, headers = await self._respond(view, scope, receive)
        except ConnectionAbortedError:
            return  # no one is left to answer
        await _send(response, headers, send)

    async def _respond(
        self, view: AsyncView, scope: Message, receive: Receive
    ) -> tuple[HttpResponse, Headers]:
        """Return the view's response, and the headers to add to it.

        Raise ConnectionAbortedError if the client closes the connection before its body is complete.
        """
        stream = BytesIO()
        try:
            request = ASGIRequest(scope, stream)
            response: HttpResponse | None = None
        except UnicodeDecodeError:
            request = ASGIRequest({**scope, "query_string": b""}, stream)
            response = error_response(400, "malformed request")
        identifier = request_id(request.META, trust_proxy=self._trust_proxy)
        bind_contextvars(request_id=identifier)
        if response is None:
            stream.write(await _receive_body(request, receive))
            stream.seek(0)
            response = await view(request)
        is_secure = request.is_secure()
        if is_secure not in self._security_headers:
            self._security_headers[is_secure] = _security_headers(request)
        return response, [(_REQUEST_ID, identifier.encode()), *self._security_headers[is_secure]]


def coroutines_by_path(observe: Observe = _unobserved) -> dict[str, AsyncView]:
    """Return the coroutines that the URLconf gives the endpoints' paths to, with their arguments."""
    paths = [f"/api/webhook/{endpoint.name}{slash}" for endpoint in ENDPOINTS for slash in ("/", "")]
    matches = {path: resolve(path) for path in paths if is_valid_path(path)}
    return {
        path: observe(partial(match.func, **match.kwargs), match.route)
        for path, match in matches.items()
        if iscoroutinefunction(match.func)
    }


def _security_headers(request: ASGIRequest) -> Headers:
    """Return what Django's middleware adds to each response, which depends on nothing but TLS."""
    response = HttpResponse()
    del response["Content-Type"]
    for middleware in (SecurityMiddleware, XFrameOptionsMiddleware):
        middleware(_no_view).process_response(request, response)
    return _encoded(response)


def _no_view(_: object) -> HttpResponse:
    """Stand in for the next middleware of one whose response headers alone are used."""
    raise AssertionError("not called")


def _without_ambiguous_headers(scope: Message) -> Message:
    """Drop headers with an underscore, which WSGI can't tell from a hyphen, as Django does under ASGI."""
    if scope["type"] != "http":
        return scope
    return {**scope, "headers": [header for header in scope["headers"] if b"_" not in header[0]]}


async def _receive_body(request: ASGIRequest, receive: Receive) -> bytes:
    """Return the body; nothing if it would be refused. The server limits its time (web/uvicorn_worker.py)."""
    try:
        length = body_length(request.META.get("CONTENT_LENGTH", ""))
    except (LengthRequired, BodyTooLong):
        return b""
    return await receive_body(receive, length)


def _encoded(response: HttpResponse) -> Headers:
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in response.items()]


async def _send(response: HttpResponse, headers: Headers, send: Send) -> None:
    content = response.content
    headers = [*_encoded(response), *headers, (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": content})
