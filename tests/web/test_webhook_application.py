"""The endpoint by its own ASGI application: it answers as Django's view does, headers included."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from django.test import Client, override_settings
from django.urls import path
from pytest_django import Settings

from core.delivery_auth import DeliveryAuth
from ingest.banks.registry import ENDPOINTS
from ingest.group_commit import group_commit
from ingest.models import RejectedDelivery, Webhook
from ingest.views import BODY_BYTES_MAX, webhook
from tests.factories import payment_body, terms
from web.health import healthz
from web.webhook_application import WebhookApplication, coroutines_by_path

PATH = "/api/webhook/bank/"
urlpatterns = [
    path("api/webhook/bank/", healthz),
    path("api/webhook/tochka/", webhook, {"endpoint": ENDPOINTS[1]}),
]
Answer = tuple[int, dict[str, str], bytes]


@pytest.fixture(autouse=True)
def closed_group_commit() -> Iterator[None]:
    yield
    group_commit.close()


def scope(path: str = PATH, *, method: str = "POST", query: bytes = b"", **headers: str) -> dict[str, Any]:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query,
        "scheme": "http",
        "client": ("127.0.0.1", 5000),
        "server": ("localhost", 8000),
        "headers": [(b"host", b"localhost"), *named],
    }


def request(body: bytes = b"", **parts: Any) -> dict[str, Any]:
    return scope(**{"content_length": str(len(body)), **parts})


def ask(
    asked: dict[str, Any], *chunks: bytes, application: WebhookApplication | None = None, stays: bool = False
) -> Answer:
    """Return the response to a request whose body arrives in chunks; with `stays`, never completely."""
    messages: list[Any] = []

    async def other(*_: object) -> None:
        raise AssertionError("not for other applications")

    async def receive() -> Any:
        if not waiting:
            await asyncio.sleep(0 if not stays else 60)
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting) or stays}

    async def send(message: Any) -> None:
        messages.append(message)

    waiting = list(chunks)
    handler = application or WebhookApplication(other, trust_proxy=False)
    asyncio.run(handler(asked, receive, send))
    if not messages:
        return (0, {}, b"")
    start, content = messages
    headers = {name.decode().title(): value.decode() for name, value in start["headers"]}
    return start["status"], headers, content["body"]


def test_its_paths_are_the_urls_of_the_endpoints() -> None:
    assert list(coroutines_by_path()) == [
        f"/api/webhook/{endpoint.name}{slash}" for endpoint in ENDPOINTS for slash in ("/", "")
    ]


@override_settings(ROOT_URLCONF="tests.web.test_webhook_application")
def test_path_that_the_urlconf_gives_to_another_kind_of_view_is_left_to_it() -> None:
    """The benchmark's baselines replace the view of this path."""
    assert list(coroutines_by_path()) == ["/api/webhook/tochka/"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("POST", None),
        ("POST", b"{}"),
        ("POST", b"x" * (BODY_BYTES_MAX + 1)),
        ("GET", b""),
        ("OPTIONS", b""),
    ],
)
@pytest.mark.parametrize("path", [PATH, PATH.rstrip("/"), "/api/webhook/tbank/"])
def test_both_mounts_answer_alike(method: str, body: bytes | None, path: str) -> None:
    first, second = (payment_body(terms()) if body is None else body for _ in range(2))
    by_view = Client().generic(method, path, first, content_type="application/json")
    status, headers, content = ask(request(second, path=path, method=method), second)

    assert (status, content) == (by_view.status_code, by_view.content)
    assert headers.pop("X-Request-Id")
    assert headers == {name.title(): value for name, value in by_view.items()}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({}, 200),
        ({"authorization": ""}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"host": "evil.example"}, 503),
        ({"content-length": "x"}, 411),
        ({"content-length": "99999"}, 413),
    ],
)
def test_both_mounts_answer_alike_to_any_headers(
    changed: dict[str, str], status: int, settings: Settings
) -> None:
    settings.ENDPOINT_AUTH = {"bank": DeliveryAuth(bearer=[b"a-secret-of-the-bank"])}
    body = payment_body(terms())
    headers = {"authorization": "Bearer a-secret-of-the-bank", "host": "localhost"}
    headers |= {"content-length": str(len(body)), "content-type": "application/json", **changed}
    environ: dict[str, Any] = {
        f"HTTP_{name}".upper(): value for name, value in headers.items() if "-" not in name
    }
    environ |= {"CONTENT_LENGTH": headers["content-length"], "CONTENT_TYPE": "application/json"}
    asked = {**scope(), "headers": [(name.encode(), value.encode()) for name, value in headers.items()]}

    for _ in range(2):  # the second time it is a duplicate
        by_view = Client().generic("POST", PATH, body, **environ)
    answer_status, answer_headers, content = ask(asked, body)

    assert (answer_status, content) == (by_view.status_code, by_view.content)
    assert answer_status == status
    assert answer_headers.pop("X-Request-Id")
    assert answer_headers == {name.title(): value for name, value in by_view.items()}


@pytest.mark.django_db(transaction=True)
def test_body_in_chunks_is_stored_as_sent() -> None:
    body = payment_body(terms())
    assert ask(request(body), body[:10], body[10:60], body[60:])[0] == 200
    assert bytes(Webhook.objects.get().body) == body


def test_body_that_would_be_refused_is_not_received() -> None:
    too_long = ask(scope(content_length=str(BODY_BYTES_MAX + 1)), stays=True)
    assert (too_long[0], ask(scope(), stays=True)[0]) == (413, 411)


@pytest.mark.django_db(transaction=True)
def test_client_that_leaves_before_its_body_is_complete_is_not_answered() -> None:
    assert ask(request(b"{}" * 10), b"{")[0] == 503  # its end was announced, and is missing
    assert ask(request(b"{}" * 10))[0] == 0
    assert not RejectedDelivery.objects.exists()


def test_query_that_is_no_text_is_malformed() -> None:
    assert ask(request(query=b"\xff"))[0] == 400


@pytest.mark.parametrize("trust_proxy", [True, False])
def test_request_id_is_the_proxys_if_trusted(trust_proxy: bool) -> None:
    application = WebhookApplication(Any, trust_proxy=trust_proxy)  # type: ignore[arg-type]
    _, headers, _ = ask(request(method="GET", x_request_id="edge-7.1_a"), application=application)
    assert (headers["X-Request-Id"] == "edge-7.1_a") is trust_proxy


@pytest.mark.parametrize(
    "path", ["/", "/api/webhook/bank//", "/api/webhook/other/", "/api/webhook/bank/x", "/healthz"]
)
def test_other_paths_go_to_the_other_application(path: str) -> None:
    passed: list[Any] = []

    async def other(asked: Any, _: object, send: Any) -> None:
        passed.append(asked)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    application = WebhookApplication(other, trust_proxy=False)
    asked = scope(path, x_real="1")
    asked["headers"] += [(b"x_real", b"2"), (b"script_name", b"/x")]
    assert ask(asked, application=application)[0] == 204
    assert passed[0]["headers"] == scope(path, x_real="1")["headers"]


def test_exception_of_the_view_does_not_reach_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Sequence[object]:
        raise ZeroDivisionError

    monkeypatch.setattr("ingest.authentication.verified_payload", fail)
    assert ask(request(b"{}"), b"{}")[0] == 503
