"""The OpenAPI document is valid and complete, and its examples equal the views' responses."""

import json
import re
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.staticfiles import finders
from django.db import DatabaseError, connection
from django.http import HttpResponse
from django.test import Client, override_settings
from django.urls import get_resolver
from jsonschema import Draft202012Validator
from schemathesis.specs.openapi.definitions import OPENAPI_31

from core.delivery_auth import DeliveryAuth
from core.http import json_response
from ingest import arrivals
from ingest.banks.registry import ENDPOINTS
from ingest.exceptions import InvalidDelivery, Overloaded
from ingest.parsing import parse
from ingest.views import BODY_BYTES_MAX
from tests.factories import MIDNIGHT_IN_MOSCOW, correct, make_webhook, payment_body, post_payments, terms
from tests.markers import sqlite_run_only
from web.openapi import FIRST, SAMPLE_DELIVERIES, document

pytestmark = sqlite_run_only

DOCUMENT: dict[str, Any] = document()
PARSED: dict[str, Any] = json.loads(json_response(DOCUMENT).content)
TIME = re.compile(rb'"(received_at|applied_at|created_at)":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"')
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")

Scene = Callable[[str, str], HttpResponse]  # given path and method


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield (path, method, operation) for each operation of the document."""
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            yield path, method.upper(), operation


def examples() -> Iterator[Any]:
    for path, method, operation in operations():
        for status, response in operation["responses"].items():
            for name, example in response["content"]["application/json"].get("examples", {}).items():
                label = f"{operation['operationId']} {status} {name}"
                yield pytest.param(path, method, int(status), name, example["value"], id=label)


def filled_in(path: str) -> str:
    """Fill in the examples of the document's parameters."""
    for parameter in next(iter(DOCUMENT["paths"][path].values())).get("parameters", []):
        path = path.replace(f"{{{parameter['name']}}}", str(parameter.get("example")))
    return path


def ask(path: str, method: str = "GET", content: object = b"", **extra: Any) -> HttpResponse:
    sent = content if isinstance(content, bytes) else json.dumps(content).encode()
    response: Any = Client().generic(method, filled_in(path), sent, "application/json", **extra)
    return response  # type: ignore[no-any-return]


def sent(number: int) -> dict[str, Any]:
    return list(SAMPLE_DELIVERIES.values())[number]


def post(number: int) -> None:
    """Post a delivery of the document's examples, as a worker does."""
    post_payments(parse(json.dumps(sent(number)).encode()))


def take_back(number: int) -> None:
    correct(parse(json.dumps(sent(number)).encode()))


def stored(**fields: Any) -> None:
    make_webhook(terms(operation_id=FIRST), **fields)


# --- the scene of each example ----------------------------------------------------------------------


def ask_a_broken_database(path: str, method: str) -> HttpResponse:
    def fail(*_: object) -> None:
        raise DatabaseError("gone")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "cursor", fail)
        return ask(path, method, sent(0))


def too_busy(path: str, method: str) -> HttpResponse:
    def fail(_: object) -> None:
        raise Overloaded

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrivals, "store_arrival", fail)
        return ask(path, method, sent(0))


def without_a_migration(path: str, method: str) -> HttpResponse:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("web.health.MigrationExecutor.migration_plan", lambda *_: ["0001_initial"])
        return ask(path, method)


def after(*happened: Callable[[], object]) -> Scene:
    def scene(path: str, method: str) -> HttpResponse:
        for happens in happened:
            happens()
        return ask(path, method, sent(0))

    return scene


def sending(content: object, **extra: Any) -> Scene:
    return lambda path, method: ask(path, method, content, **extra)


def by(method: str) -> Scene:
    return lambda path, _: ask(path, method)


def with_query(query: str) -> Scene:
    return lambda path, method: ask(path, method, QUERY_STRING=query)


def before_the_first_payment(path: str, method: str) -> HttpResponse:
    post(0)
    return ask(path, method, QUERY_STRING="at=2020-01-01T00:00:00Z")


def under(scene: Scene, **settings: Any) -> Scene:
    def scene_under(path: str, method: str) -> HttpResponse:
        with override_settings(**settings):
            return scene(path, method)

    return scene_under


def over_the_failure_limit(path: str, method: str) -> HttpResponse:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("api.throttling.FAILURES_PER_MINUTE_MAX", 1)
        patch.setattr("api.throttling.time.time", lambda: 1_800_000_000.0)  # no new minute begins meanwhile
        ask(path, method)
        return ask(path, method)


NO_DATE_TIME = "must be an ISO 8601 date and time with an offset (in which + is written %2B)"
SCENES: dict[str, Scene] = {
    "First delivery": after(),
    "Duplicate": after(lambda: make_webhook(parse(json.dumps(sent(0)).encode()))),
    "amount: must be greater than zero": sending(sent(0) | {"amount": 0}),
    "payer_inn: must be a string of exactly 10 or 12 digits": sending(sent(0) | {"payer_inn": "7"}),
    "document_date: is missing": sending({k: v for k, v in sent(0).items() if k != "document_date"}),
    "body: must be valid JSON": sending(b"{"),
    "use POST": by("GET"),
    "use GET or HEAD": by("POST"),
    "Content-Length is required": sending(b"", CONTENT_LENGTH=""),
    "body: must not be longer than 65536 bytes": sending(b"x" * (BODY_BYTES_MAX + 1)),
    "body: arrived incomplete, please send it again": sending(b"{}", **{"wsgi.input": BytesIO(b"{")}),
    "too busy, please send again": too_busy,
    "temporarily unavailable, please try again": ask_a_broken_database,
    "not configured for this delivery yet, please send it again": sending(b"{}", HTTP_HOST="evil.example"),
    "malformed request": sending(b"{}", HTTP_HOST="evil.example"),
    "Whole rubles": after(lambda: post(0)),
    "Rubles and kopecks": after(lambda: post(0), lambda: post(1)),
    "At a time before the first payment": before_the_first_payment,
    "Two payments": after(lambda: post(0), lambda: post(1)),
    "A reversal": after(lambda: post(0), lambda: post(1), lambda: take_back(1)),
    "limit: must be a positive whole number": with_query("limit=0"),
    "before, after: give one of them": with_query("before=2&after=1"),
    f"from: {NO_DATE_TIME}": with_query("from=yesterday"),
    f"at: {NO_DATE_TIME}": with_query("at=2024-04-27"),
    "not authorized": under(after(), ENDPOINT_AUTH={"bank": DeliveryAuth(bearer=[b"a token of the bank"])}),
    "Not found": under(after(), ENDPOINT_AUTH={}),
    "a valid API key is needed": under(after(), READ_AUTH="key"),
    "too many failed requests": under(over_the_failure_limit, READ_AUTH="key"),
    "Organization not found": after(),
    "Operation not found": after(),
    "Stored": after(stored),
    "Posted": after(lambda: stored(status="applied", applied_at=MIDNIGHT_IN_MOSCOW.replace(microsecond=1))),
    "Failed, until an operator replays it": after(lambda: stored(status="failed")),
    "Dismissed": after(lambda: stored(status="dismissed")),
    "Held as a suspected duplicate": after(lambda: stored(status="held")),
    "Posted from a bank statement before": after(lambda: stored(status="merged")),
    "Up": after(),
    "Ready": after(),
    "migrations are missing: manage.py migrate": without_a_migration,
}


@pytest.mark.django_db
@pytest.mark.parametrize(("path", "method", "status", "name", "example"), list(examples()))
def test_example_equals_the_views_response(
    path: str, method: str, status: int, name: str, example: object
) -> None:
    response = SCENES[name](path, method)

    assert response.status_code == status
    assert _without_times(response.content) == _without_times(json_response(example).content)
    headers = DOCUMENT["paths"][path][method.lower()]["responses"][str(status)]["headers"]
    for header, documented in headers.items():
        if documented["required"] or header in response:
            Draft202012Validator(documented["schema"]).validate(response[header])


def _without_times(content: bytes) -> bytes:
    """Replace well-formed times, which differ between runs."""
    return TIME.sub(rb'"\1":"a time"', content)


# --- completeness -----------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize(
    "scene",
    [
        ask,
        ask_a_broken_database,
        *(SCENES[name] for name in ("malformed request", "not authorized", "a valid API key is needed")),
    ],
)
@pytest.mark.parametrize(("path", "documented"), [(path, op["responses"]) for path, _, op in operations()])
def test_every_response_status_is_documented(path: str, documented: dict[str, Any], scene: Scene) -> None:
    for method in METHODS:
        response = scene(path, method)
        assert str(response.status_code) in documented, method
        assert response["Content-Type"] == "application/json", method


def test_every_api_path_is_documented() -> None:
    routes = {str(pattern.pattern) for pattern in get_resolver().url_patterns}
    ours = {re.sub(r"<str:(\w+)>", r"{\1}", route) for route in routes if route.startswith("api/")}

    assert {path.removeprefix("/") for path in DOCUMENT["paths"] if path.startswith("/api/")} == ours - {
        *("api/openapi.json", "api/docs/"),
        *(f"api/webhook/{endpoint.name}" for endpoint in ENDPOINTS),  # without the final slash
    }


# --- the document itself ----------------------------------------------------------------------------


def test_document_is_valid() -> None:
    Draft202012Validator(OPENAPI_31).validate(PARSED)
    for schema in PARSED["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_example_matches_its_schema() -> None:
    for _, _, operation in operations():
        messages = [*operation["responses"].values(), operation.get("requestBody", {"content": {}})]
        in_json = [
            part["content"]["application/json"] for part in messages if "application/json" in part["content"]
        ]
        for content in in_json:
            schema = {**content["schema"], "components": PARSED["components"]}
            for example in content.get("examples", {}).values():
                Draft202012Validator(schema).validate(json.loads(json_response(example["value"]).content))


def test_unchanged_document_gets_304() -> None:
    first = Client().get("/api/openapi.json")
    assert (first.status_code, first["Content-Type"]) == (200, "application/json")
    assert json.loads(first.content) == PARSED
    assert first["Cache-Control"] == "public, max-age=300"

    again = Client().get("/api/openapi.json", headers={"If-None-Match": first["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


# Valid and invalid JSON values of each field.
SPELLINGS = {
    "amount": [
        *('"1"', '"1."', '"01.10"', '"0.05"', '".5"', '"0.500"', '"9999999999999.99000"', f'"{"0" * 61}1"'),
        *(
            '"0"',
            '"0.00"',
            '""',
            '"."',
            '"1.005"',
            '"10000000000000"',
            '"1e2"',
            '"-1"',
            '"１"',
            f'"{"0" * 62}1"',
        ),
        *("1", "1e2", "0.01", "9999999999999.99"),
        *("0", "-1", "0.001", "1e13", "true", "null", "[]"),
    ],
    "payer_inn": [
        '"1234567890"',
        '"123456789012"',
        '"12345678901"',
        '"1"',
        '"１２３４５６７８９０"',
        "1234567890",
    ],
    "operation_id": [
        *(f'"{FIRST.hex}"', f'"{{{FIRST}}}"', f'"{FIRST.urn}"', f'"{FIRST.urn.upper()}"'),
        *(f'"{{{FIRST}"', f'"{FIRST}}}"', f'"{FIRST.hex[1:]}"', '""', f'"{str(FIRST).replace("-", "", 1)}"'),
    ],
    "document_number": ['"x"', f'"{"x" * 255}"', '""', f'"{"x" * 256}"', '"\\u0000"', '"x\\u0000"'],
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in SPELLINGS.items() for value in values]
)
def test_delivery_schema_accepts_what_the_endpoint_accepts(field: str, value: str) -> None:
    delivery = payment_body(terms(), **{field: None}).replace(
        f'"{field}": null'.encode(), f'"{field}": {value}'.encode()
    )
    schema = PARSED["components"]["schemas"]["BankWebhook"]
    by_the_schema = Draft202012Validator(schema).is_valid(json.loads(delivery))
    try:
        parse(delivery)
    except InvalidDelivery:
        assert not by_the_schema
    else:
        assert by_the_schema


# --- the page ---------------------------------------------------------------------------------------


def test_docs_page_loads_only_existing_local_files() -> None:
    response = Client().get("/api/docs/")
    html = response.content.decode()

    assert (response.status_code, response["Content-Type"]) == (200, "text/html; charset=utf-8")
    references = re.findall(r'(?:src|href|data-document)="([^"]*)"', html)
    files = [reference for reference in references if reference.startswith("/static/")]
    assert set(references) - set(files) == {"/api/openapi.json"}
    assert len(files) == 5
    for file in files:
        found = finders.find(file.removeprefix("/static/"))
        assert found, file
        if file.endswith(".css"):
            assert not re.search(r"@import|url\((?![\"']?data:)", Path(found).read_text())


def test_docs_page_has_no_inline_scripts_or_styles() -> None:
    html = Client().get("/api/docs/").content.decode()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:", html)


def test_docs_page_rejects_post() -> None:
    response = Client().post("/api/docs/")
    assert (response.status_code, response["Allow"]) == (405, "GET, HEAD")
