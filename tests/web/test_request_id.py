import re
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest
from structlog.contextvars import bind_contextvars, get_contextvars

from web.request_id import request_id_middleware

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"  # as W3C's examples have it
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def request_id(*, trust_proxy: bool, **environ: str) -> str:
    """The id of a request, which its log lines and its answer agree about."""
    said = []

    def application(_: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        said.append(get_contextvars())
        bind_contextvars(operation_id="of this request only")
        start_response("200 OK", [("Content-Type", "text/plain")])
        return []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> object:
        said.append(dict(headers))
        return None

    request_id_middleware(application, trust_proxy=trust_proxy)(environ, start_response)  # type: ignore[arg-type]
    bound, headers = said
    assert bound == {"request_id": headers["X-Request-ID"]}
    assert headers["Content-Type"] == "text/plain"
    return headers["X-Request-ID"]


def test_each_request_gets_an_id_of_its_own_and_no_line_of_the_last_ones() -> None:
    ids = {request_id(trust_proxy=False) for _ in range(3)}
    assert len(ids) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in ids)


def test_a_trusted_proxy_names_it_by_either_header() -> None:
    assert request_id(trust_proxy=True, HTTP_X_REQUEST_ID="edge-7.1_a") == "edge-7.1_a"
    assert request_id(trust_proxy=True, HTTP_TRACEPARENT=TRACEPARENT) == TRACE
    both = request_id(trust_proxy=True, HTTP_X_REQUEST_ID="edge-7.1_a", HTTP_TRACEPARENT=TRACEPARENT)
    assert both == "edge-7.1_a"


def test_nobody_else_does() -> None:
    assert request_id(trust_proxy=False, HTTP_X_REQUEST_ID="made-up-by-me") != "made-up-by-me"
    assert request_id(trust_proxy=False, HTTP_TRACEPARENT=TRACEPARENT) != TRACE


@pytest.mark.parametrize(
    "told", ["", "short", "x" * 65, "two words here", 'quote"in-it', "line\nbreak-in-it", "ё" * 9]
)
def test_what_is_not_sane_is_replaced(told: str) -> None:
    assert request_id(trust_proxy=True, HTTP_X_REQUEST_ID=told) != told


@pytest.mark.parametrize(
    "told", ["", "00", TRACEPARENT + "\n", TRACEPARENT.replace(TRACE, "0" * 32), TRACEPARENT.upper()]
)
def test_nor_is_a_malformed_traceparent_believed(told: str) -> None:
    assert request_id(trust_proxy=True, HTTP_TRACEPARENT=told).lower() not in {TRACE, "0" * 32}
