"""Hostile text that is a valid document number, or an invalid anything, as the admin's pages show it."""

import http.client
import json
import random
import re
from html.parser import HTMLParser
from urllib.parse import urlencode

import pytest

from tests.fuzz.attacker import deliver, exchange, honest
from tests.fuzz.corpus import HONEST, MARK, TEXTS, WEBHOOK, fields, literal, request
from tests.harness.launcher_stack import LauncherStack, wait_until

ADMIN = ("hostile-admin", "long enough for anyone")
LISTS = [
    "ingest/webhook",
    "ingest/rejecteddelivery",
    "ingest/conflictingdelivery",
    "ledger/payment",
    "ledger/balancelog",
]
NAMES = [
    "operation_id",
    "payer_inn",
    "document_number",
    "document_date",
    "amount",
    f"<script>{MARK}()</script>",
]


class Page(HTMLParser):
    """Finds the mark wherever a browser would run it: as a tag, in an attribute that acts, in a script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.live: list[str] = []
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        for name, value in attrs:
            acts = name.startswith("on") or name in {"href", "src", "style", "srcdoc", "action"}
            if MARK in name or (acts and MARK in (value or "") and not (value or "").startswith(("/", "?"))):
                self.live.append(f"<{tag} {name}={value!r}>")

    def handle_data(self, data: str) -> None:
        if self._inside in {"script", "style"} and MARK in data:
            self.live.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""


class Browser:
    """A member of the staff, over HTTP."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._cookies: dict[str, str] = {}
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.open("/admin/login/"))
        assert token
        name, password = ADMIN
        self.open("/admin/login/", csrfmiddlewaretoken=token[1], username=name, password=password)
        assert "sessionid" in self._cookies

    def open(self, path: str, **form: str) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items())}
        if form:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        connection.request("POST" if form else "GET", path, urlencode(form) if form else None, headers)
        answer = connection.getresponse()
        for cookie in answer.headers.get_all("Set-Cookie", []):
            name, _, value = cookie.partition(";")[0].partition("=")
            self._cookies[name] = value
        assert answer.status in {200, 302}, (answer.status, path)
        text = answer.read().decode()
        connection.close()
        return text


@pytest.fixture(scope="module")
def poisoned_stack(stack: LauncherStack) -> LauncherStack:
    """Every hostile text is in every field of a delivery, and in the ledger where the field takes it."""
    chance = random.Random(5)
    name, password = ADMIN
    code = "from django.contrib.auth.models import User as U; U.objects.create_superuser"
    made = stack.manage("shell", "-c", f"{code}({name!r}, '', {password!r})")
    assert made.returncode == 0, made.stderr
    for text in TEXTS:
        body = honest(chance, 100, text)
        assert deliver(stack.port, body)[0] == 200
        other = json.dumps(json.loads(body) | {"document_number": text[::-1] + text}).encode()
        assert deliver(stack.port, other)[0] == 200  # a conflict
        for field in NAMES:
            if field != "document_number":
                bad = request("POST", WEBHOOK, literal(chance, field, json.dumps(text + "\0" * 300)))
                assert b" 400 " in exchange(stack.port, (bad,))[:20] or MARK in field
        twice = json.dumps(fields(chance)).encode()[:-1] + (f", {json.dumps(text)}: 1" * 2).encode() + b"}"
        assert b" 400 " in exchange(stack.port, (request("POST", WEBHOOK, twice),))[:20]
    path = f"/api/organizations/{HONEST}/balance/"
    wait_until(lambda: stack.json(path).get("balance", 0) >= len(TEXTS), stack)
    return stack


def test_hostile_text_is_shown_as_text_and_nothing_more(poisoned_stack: LauncherStack) -> None:
    browser = Browser(poisoned_stack.port)
    pages = {path: browser.open(path) for path in (f"/admin/{name}/" for name in LISTS)}
    for path, listed in list(pages.items()):
        for row in sorted(set(re.findall(rf'href="({path}\d+/change/)', listed)))[:60]:
            pages[row] = browser.open(row)
    for text in TEXTS:
        path = f"/admin/ingest/webhook/?{urlencode({'q': text})}"
        pages[path] = browser.open(path)

    assert len(pages) > 3 * len(TEXTS)
    assert {path: live for path, text in pages.items() if (live := Page(text).live)} == {}
    shown = pages["/admin/ledger/payment/"]
    assert f"&lt;script&gt;{MARK}()&lt;/script&gt;" in shown
    assert sum(MARK in text for text in pages.values()) > 2 * len(TEXTS)


@pytest.mark.parametrize(
    "live",
    [
        f"<script>{MARK}()</script>",
        f"<img src=x onerror={MARK}()>",
        f'<a href="javascript:{MARK}()">',
        f"<{MARK} {MARK}>",
    ],
)
def test_a_page_that_does_not_escape_is_found_out(live: str) -> None:
    assert Page(f"<p>{live}</p>").live
