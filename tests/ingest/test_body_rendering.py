"""Bodies are shown in bounded space, and downloaded whole."""

import pytest
from django.db.models import Model
from django.test import Client

from ingest import inbox
from ingest.admin import body_rendering
from ingest.models import ConflictingDelivery, IgnoredDelivery, RejectedDelivery, Webhook
from ingest.views import BODY_BYTES_MAX
from tests.admin_client import admin_url, staff_client, superuser_client
from tests.factories import make_webhook
from tests.markers import sqlite_run_only

pytestmark = [pytest.mark.django_db, sqlite_run_only]
PAGE_BYTES_MAX = 1_000_000
NESTED_STRINGS = b'["' + b"[" * 30_000 + b'"]'
BODIES = {
    "lists in lists": b"[" * (BODY_BYTES_MAX // 2) + b"]" * (BODY_BYTES_MAX // 2),
    "objects in objects": b'{"":' * 13_000 + b"1" + b"}" * 13_000,
    "opened only": b"[" * BODY_BYTES_MAX,
    "many values, deep down": b"[" * 32 + b"1," * 32_000 + b"1" + b"]" * 32,
    "NULs": b"\0" * BODY_BYTES_MAX,
    "control characters": bytes(range(32)) * (BODY_BYTES_MAX // 32),
    "quotes": b'"' * BODY_BYTES_MAX,
    "both quotes": b"'\"" * (BODY_BYTES_MAX // 2),
    "quotes in a string": b'"' + b'\\"' * 32_000 + b'"',
    "apostrophes in a string": b'"' + b"'" * 65_000 + b'"',
    "wide characters": b'["' + "\N{BOMB}".encode() * 16_000 + b'"]',
    "no UTF-8": b"\xff" * BODY_BYTES_MAX,
    "tags": b'["' + b"<b>&" * 16_000 + b'"]',
    "empty lists": b"[" + b"[]," * 21_000 + b"[]]",
}


@pytest.fixture
def admin_client() -> Client:
    return superuser_client()


def make_rows(body: bytes) -> list[Model]:
    """Create a row of each model with a body, and hostile text in its other fields."""
    webhook = make_webhook(body=body, last_error='"' * 2000, document_number='"' * 255)
    inbox.record_rejected(inbox.Delivery(body), '"' * 300)
    inbox.record_ignored(inbox.Delivery(body, "tbank"), '"' * 300)
    ConflictingDelivery.objects.create(webhook=webhook, difference='"' * 255, body=body)
    return [
        webhook,
        *(model.objects.get() for model in (RejectedDelivery, IgnoredDelivery, ConflictingDelivery)),
    ]


@pytest.mark.parametrize("name", BODIES)
def test_page_size_is_bounded_for_any_body(name: str, admin_client: Client) -> None:
    body = BODIES[name]
    assert len(body) <= BODY_BYTES_MAX
    for row in make_rows(body):
        shown = admin_client.get(admin_url(type(row), "change", row.pk))
        assert (shown.status_code, len(shown.content) < PAGE_BYTES_MAX) == (200, True)
        assert len(admin_client.get(admin_url(type(row), "changelist")).content) < PAGE_BYTES_MAX


@pytest.mark.parametrize("name", BODIES)
def test_download_returns_the_exact_bytes(name: str, admin_client: Client) -> None:
    for row in make_rows(BODIES[name]):
        file = admin_client.get(admin_url(type(row), "body", row.pk))
        assert file.content == BODIES[name]
        assert file["Content-Type"] == "application/octet-stream"
        assert file["Content-Disposition"].startswith("attachment")


def test_download_needs_view_permission() -> None:
    row = make_rows(b"1")[1]
    assert staff_client("view_webhook").get(admin_url(RejectedDelivery, "body", row.pk)).status_code == 403
    viewer = staff_client("view_rejecteddelivery", name="boris")
    assert viewer.get(admin_url(RejectedDelivery, "body", row.pk)).status_code == 200
    assert viewer.get(admin_url(RejectedDelivery, "body", 999)).status_code == 404


def test_truncated_text_counts_the_rest(admin_client: Client) -> None:
    text = "x" * (body_rendering.BLOCK_CHARS_MAX + 12)
    assert body_rendering.preformatted(text).endswith("x\n… and 12 more characters</pre>")
    assert "more characters" not in body_rendering.preformatted("x" * body_rendering.BLOCK_CHARS_MAX)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"a":[1.50,{}]}', '{\n  "a": [\n    1.50,\n    {}\n  ]\n}'),
        (b'["[[[[", "\\"[["]', '[\n  "[[[[",\n  "\\"[["\n]'),
        (NESTED_STRINGS, f'[\n  "{"[" * 30_000}"\n]'),
        (b"[" * 33 + b"]" * 33, "not JSON, or nested too deeply"),
        (b"[" * 99, "not JSON, or nested too deeply"),
        (b"]]]", "not JSON"),
        (b"\xff", "not JSON"),
    ],
)
def test_body_is_indented_unless_nested_too_deeply(body: bytes, text: str) -> None:
    assert body_rendering.indent_json(body) == text


def test_webhook_page_says_that_body_was_deleted(admin_client: Client) -> None:
    webhook = make_webhook(body=b"")
    assert (
        b"deleted after the retention period"
        in admin_client.get(admin_url(Webhook, "change", webhook.pk)).content
    )
