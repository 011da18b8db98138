import re
from collections.abc import Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest
from structlog.contextvars import bind_contextvars, get_contextvars

from web.request_id import request_id_middleware

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"  # of W3C's examples
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def request_id(*, trust_proxy: bool, **environ: str) -> str:
    """Return the id in the response, after checking that the log context has the same."""
    seen: list[Any] = []

    def application(_: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(get_contextvars())
        bind_contextvars(operation_id="of this request only")
        start_response("200 OK", [("Content-Type", "text/plain")])
        return []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> object:
        seen.append(dict(headers))
        return None

    request_id_middleware(application, trust_proxy=trust_proxy)(environ, start_response)  # type: ignore[arg-type]
    bound, headers = seen
    assert bound == {"request_id": headers["X-Request-ID"]}
    assert headers["Content-Type"] == "text/plain"
    return headers["X-Request-ID"]


def test_each_request_has_a_new_id_and_a_clean_log_context() -> None:
    ids = {request_id(trust_proxy=False) for _ in range(3)}
    assert len(ids) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in ids)


def test_trusted_proxy_sets_the_id_by_either_header() -> None:
    assert request_id(trust_proxy=True, HTTP_X_REQUEST_ID="edge-7.1_a") == "edge-7.1_a"
    assert request_id(trust_proxy=True, HTTP_TRACEPARENT=TRACEPARENT) == TRACE
    both = request_id(trust_proxy=True, HTTP_X_REQUEST_ID="edge-7.1_a", HTTP_TRACEPARENT=TRACEPARENT)
    assert both == "edge-7.1_a"


def test_untrusted_client_cannot_set_the_id() -> None:
    assert request_id(trust_proxy=False, HTTP_X_REQUEST_ID="made-up-by-me") != "made-up-by-me"
    assert request_id(trust_proxy=False, HTTP_TRACEPARENT=TRACEPARENT) != TRACE


@pytest.mark.parametrize(
    "request_id_header",
    ["", "short", "x" * 65, "two words here", 'quote"in-it', "line\nbreak-in-it", "ё" * 9],
)
def test_invalid_request_id_is_replaced(request_id_header: str) -> None:
    assert request_id(trust_proxy=True, HTTP_X_REQUEST_ID=request_id_header) != request_id_header


@pytest.mark.parametrize(
    "traceparent", ["", "00", TRACEPARENT + "\n", TRACEPARENT.replace(TRACE, "0" * 32), TRACEPARENT.upper()]
)
def test_malformed_traceparent_is_ignored(traceparent: str) -> None:
    assert request_id(trust_proxy=True, HTTP_TRACEPARENT=traceparent).lower() not in {TRACE, "0" * 32}
