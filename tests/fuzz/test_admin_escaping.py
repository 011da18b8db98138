"""The admin's pages escape hostile text, in valid document numbers and in invalid deliveries."""

import json
import random
import re
from html.parser import HTMLParser
from urllib.parse import urlencode

import pytest
from django.test import Client

from tests.admin_client import superuser_client
from tests.fuzz.attacker import valid_body
from tests.fuzz.corpus import MARK, TEXTS, WEBHOOK, fields, literal
from tests.markers import sqlite_run_only
from worker import tasks

pytestmark = sqlite_run_only
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


def deliver(body: bytes) -> int:
    return Client().post(WEBHOOK, body, content_type="application/json").status_code


@pytest.fixture
def hostile_rows(transactional_db: None) -> None:
    """Have every hostile text in every field, in the ledger where the field permits it."""
    rng = random.Random(5)
    for text in TEXTS:
        body = valid_body(rng, 100, text)
        assert deliver(body) == 200
        other = json.dumps(json.loads(body) | {"document_number": text[::-1] + text}).encode()
        assert deliver(other) == 200  # a conflict
        for field in NAMES:
            if field != "document_number":
                assert deliver(literal(rng, field, json.dumps(text + "\0" * 300))) == 400 or MARK in field
        twice = json.dumps(fields(rng)).encode()[:-1] + (f", {json.dumps(text)}: 1" * 2).encode() + b"}"
        assert deliver(twice) == 400
    tasks.apply_received()


@pytest.mark.usefixtures("hostile_rows")
def test_hostile_text_is_escaped_on_every_page() -> None:
    client = superuser_client()

    def opened(path: str) -> str:
        response = client.get(path)
        assert response.status_code == 200, path
        return response.content.decode()

    pages = {path: opened(path) for path in (f"/admin/{name}/" for name in LISTS)}
    for path, listed in list(pages.items()):
        for row in sorted(set(re.findall(rf'href="({path}\d+/change/)', listed)))[:60]:
            pages[row] = opened(row)
    for text in TEXTS:
        path = f"/admin/ingest/webhook/?{urlencode({'q': text})}"
        pages[path] = opened(path)

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
