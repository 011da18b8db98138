"""The admin's pages escape hostile text, in valid document numbers and in invalid deliveries."""

import http.client
import json
import random
import re
from html.parser import HTMLParser
from urllib.parse import urlencode

import pytest

from tests.fuzz.attacker import deliver, exchange, valid_body
from tests.fuzz.corpus import MARK, TEXTS, VALID_INN, WEBHOOK, fields, literal, request
from tests.harness.launcher_stack import LauncherStack

ADMIN = ("hostile-admin", "a long password")
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
    """Collect the mark wherever a browser would execute it: as a tag, in an active attribute, in a script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.executable: list[str] = []
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        for name, value in attrs:
            is_active = name.startswith("on") or name in {"href", "src", "style", "srcdoc", "action"}
            if MARK in name or (
                is_active and MARK in (value or "") and not (value or "").startswith(("/", "?"))
            ):
                self.executable.append(f"<{tag} {name}={value!r}>")

    def handle_data(self, data: str) -> None:
        if self._inside in {"script", "style"} and MARK in data:
            self.executable.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""


class Browser:
    """A staff user's session over HTTP."""

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
        response = connection.getresponse()
        for cookie in response.headers.get_all("Set-Cookie", []):
            name, _, value = cookie.partition(";")[0].partition("=")
            self._cookies[name] = value
        assert response.status in {200, 302}, (response.status, path)
        text = response.read().decode()
        connection.close()
        return text


@pytest.fixture(scope="module")
def poisoned_stack(stack: LauncherStack) -> LauncherStack:
    """A stack with every hostile text in every field, in the ledger where the field permits it."""
    rng = random.Random(5)
    name, password = ADMIN
    code = "from django.contrib.auth.models import User as U; U.objects.create_superuser"
    made = stack.manage("shell", "-c", f"{code}({name!r}, '', {password!r})")
    assert made.returncode == 0, made.stderr
    for text in TEXTS:
        body = valid_body(rng, 100, text)
        assert deliver(stack.port, body)[0] == 200
        other = json.dumps(json.loads(body) | {"document_number": text[::-1] + text}).encode()
        assert deliver(stack.port, other)[0] == 200  # a conflict
        for field in NAMES:
            if field != "document_number":
                bad = request("POST", WEBHOOK, literal(rng, field, json.dumps(text + "\0" * 300)))
                assert b" 400 " in exchange(stack.port, (bad,))[:20] or MARK in field
        twice = json.dumps(fields(rng)).encode()[:-1] + (f", {json.dumps(text)}: 1" * 2).encode() + b"}"
        assert b" 400 " in exchange(stack.port, (request("POST", WEBHOOK, twice),))[:20]
    path = f"/api/organizations/{VALID_INN}/balance/"
    stack.wait_until(lambda: stack.json(path).get("balance", 0) >= len(TEXTS))
    return stack


def test_hostile_text_is_escaped_on_every_page(poisoned_stack: LauncherStack) -> None:
    browser = Browser(poisoned_stack.port)
    pages = {path: browser.open(path) for path in (f"/admin/{name}/" for name in LISTS)}
    for path, listed in list(pages.items()):
        for row in sorted(set(re.findall(rf'href="({path}\d+/change/)', listed)))[:60]:
            pages[row] = browser.open(row)
    for text in TEXTS:
        path = f"/admin/ingest/webhook/?{urlencode({'q': text})}"
        pages[path] = browser.open(path)

    assert len(pages) > 3 * len(TEXTS)
    assert {path: executable for path, text in pages.items() if (executable := Page(text).executable)} == {}
    shown = pages["/admin/ledger/payment/"]
    assert f"&lt;script&gt;{MARK}()&lt;/script&gt;" in shown
    assert sum(MARK in text for text in pages.values()) > 2 * len(TEXTS)


@pytest.mark.parametrize(
    "executable",
    [
        f"<script>{MARK}()</script>",
        f"<img src=x onerror={MARK}()>",
        f'<a href="javascript:{MARK}()">',
        f"<{MARK} {MARK}>",
    ],
)
def test_unescaped_page_is_detected(executable: str) -> None:
    assert Page(f"<p>{executable}</p>").executable
