"""docs/prihod.postman_collection.json tells the truth: each request in it gets the answer saved with it."""

import json
import re
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

from tests.harness.launcher_stack import LauncherStack
from tests.harness.servers import ROOT

COLLECTION: dict[str, Any] = json.loads((ROOT / "docs/prihod.postman_collection.json").read_text())
# The moments at which things happen are another in each run; their shape is not.
MOMENT = re.compile(r'"(received_at|applied_at|created_at)":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"')
APPLIED_SECONDS_MAX = 60.0
POLL_SECONDS = 0.05

Answer = tuple[int, str, str]  # status, content type, body


def requests(items: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The collection's requests, in the order in which Postman runs them."""
    for item in items:
        if "item" in item:
            yield from requests(item["item"])
        else:
            yield item


def filled_in(text: str) -> str:
    values: dict[str, str] = {variable["key"]: variable["value"] for variable in COLLECTION["variable"]}
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], text)


def sent(stack: LauncherStack, request: dict[str, Any]) -> Answer:
    path = filled_in(request["url"]["raw"].removeprefix("{{base_url}}"))
    body = request["body"]["raw"] if "body" in request else None
    headers = {header["key"]: header["value"] for header in request["header"]}
    connection = HTTPConnection("127.0.0.1", stack.port, timeout=30)
    try:
        connection.request(request["method"], path, body, headers)
        response = connection.getresponse()
        text = response.read().decode()
    finally:
        connection.close()
    return response.status, response.headers["Content-Type"], MOMENT.sub(r'"\1":"a moment"', text)


def saved(example: dict[str, Any]) -> Answer:
    headers = {header["key"]: header["value"] for header in example["header"]}
    return example["code"], headers["Content-Type"], MOMENT.sub(r'"\1":"a moment"', example["body"])


def test_each_request_gets_the_answer_saved_with_it(stack: LauncherStack) -> None:
    """A question is asked until a worker has done what it is about; a webhook is posted once."""
    for item in requests(COLLECTION["item"]):
        expected = saved(item["response"][0])
        answer = sent(stack, item["request"])
        deadline = time.monotonic() + APPLIED_SECONDS_MAX
        while answer != expected and item["request"]["method"] == "GET" and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            answer = sent(stack, item["request"])
        assert answer == expected, item["name"]


def test_each_example_shows_the_request_it_answers() -> None:
    for item in requests(COLLECTION["item"]):
        request = {name: value for name, value in item["request"].items() if name != "description"}
        assert [example["originalRequest"] for example in item["response"]] == [request], item["name"]


def test_parts_of_an_address_say_what_the_whole_says() -> None:
    """Postman shows the whole and sends the parts."""
    for item in requests(COLLECTION["item"]):
        url = item["request"]["url"]
        query = "&".join(f"{part['key']}={part['value']}" for part in url.get("query", []))
        parts = "/".join([*url["host"], *url["path"]]) + (f"?{query}" if query else "")
        assert parts == url["raw"]


def test_collection_has_every_call_of_the_contract() -> None:
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
        ("GET", "{{base_url}}/api/operations/{{operation_id}}/", 200),
        ("GET", "{{base_url}}/api/operations/{{operation_id}}/", 404),
    }
