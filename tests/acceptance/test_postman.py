"""Each request of docs/prihod.postman_collection.json gets the response saved with it."""

import json
import re
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

from tests.harness.launcher_stack import LauncherStack
from tests.harness.servers import ROOT

COLLECTION: dict[str, Any] = json.loads((ROOT / "docs/prihod.postman_collection.json").read_text())
# Timestamps differ in each run; their format does not.
TIMESTAMP = re.compile(r'"(received_at|applied_at|created_at)":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"')
APPLIED_SECONDS_MAX = 60.0
POLL_SECONDS = 0.05

Answer = tuple[int, str, str]  # status, content type, body


def requests(items: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the collection's requests in Postman's order."""
    for item in items:
        if "item" in item:
            yield from requests(item["item"])
        else:
            yield item


def substitute_variables(text: str) -> str:
    values: dict[str, str] = {variable["key"]: variable["value"] for variable in COLLECTION["variable"]}
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], text)


def send(stack: LauncherStack, request: dict[str, Any]) -> Answer:
    path = substitute_variables(request["url"]["raw"].removeprefix("{{base_url}}"))
    body = substitute_variables(request["body"]["raw"]) if "body" in request else None
    headers = {header["key"]: header["value"] for header in request["header"]}
    connection = HTTPConnection("127.0.0.1", stack.port, timeout=30)
    try:
        connection.request(request["method"], path, body, headers)
        response = connection.getresponse()
        text = response.read().decode()
    finally:
        connection.close()
    return response.status, response.headers["Content-Type"], TIMESTAMP.sub(r'"\1":"a timestamp"', text)


def saved_response(example: dict[str, Any]) -> Answer:
    headers = {header["key"]: header["value"] for header in example["header"]}
    return example["code"], headers["Content-Type"], TIMESTAMP.sub(r'"\1":"a timestamp"', example["body"])


def test_each_request_gets_its_saved_response(stack: LauncherStack) -> None:
    """Repeat GET requests until a worker has done its part; POST webhooks once."""
    for item in requests(COLLECTION["item"]):
        expected = saved_response(item["response"][0])
        answer = send(stack, item["request"])
        deadline = time.monotonic() + APPLIED_SECONDS_MAX
        while answer != expected and item["request"]["method"] == "GET" and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            answer = send(stack, item["request"])
        assert answer == expected, item["name"]


def test_each_example_has_its_own_request() -> None:
    for item in requests(COLLECTION["item"]):
        request = {name: value for name, value in item["request"].items() if name != "description"}
        assert [example["originalRequest"] for example in item["response"]] == [request], item["name"]


def test_url_parts_match_the_raw_url() -> None:
    """Postman shows the raw URL and sends the parts."""
    for item in requests(COLLECTION["item"]):
        url = item["request"]["url"]
        query = "&".join(f"{part['key']}={part['value']}" for part in url.get("query", []))
        parts = "/".join([*url["host"], *url["path"]]) + (f"?{query}" if query else "")
        assert parts == url["raw"]


def test_collection_covers_the_api_contract() -> None:
    calls = {
        (
            item["request"]["method"],
            item["request"]["url"]["raw"].partition("?")[0],
            item["response"][0]["code"],
        )
        for item in requests(COLLECTION["item"])
    }
    organization = "{{base_url}}/api/organizations/{{inn}}"

    assert calls == {
        ("GET", "{{base_url}}/healthz", 200),
        ("GET", "{{base_url}}/readyz", 200),
        ("POST", "{{base_url}}/api/webhook/bank/", 200),
        ("POST", "{{base_url}}/api/webhook/bank/", 400),
        ("GET", f"{organization}/balance/", 200),
        ("GET", f"{organization}/balance/", 400),
        ("GET", f"{organization}/balance/", 401),
        ("GET", f"{organization}/balance/", 404),
        ("GET", f"{organization}/balance/history/", 200),
        ("GET", f"{organization}/balance/history/", 400),
        ("GET", "{{base_url}}/api/organizations/{{corrected_inn}}/balance/history/", 200),
        ("GET", "{{base_url}}/api/operations/{{operation_id}}/", 200),
        ("GET", "{{base_url}}/api/operations/{{operation_id}}/", 404),
    }
