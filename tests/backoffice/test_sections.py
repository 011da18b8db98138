"""The sections of the admin's front page."""

import re

import pytest
from django.test import Client

from backoffice import sections
from tests.admin_client import staff_client, superuser_client
from tests.markers import sqlite_run_only

pytestmark = [pytest.mark.django_db, sqlite_run_only]
SHOWN = {
    "money": ["Organizations", "Payments", "Balance log entries", "Unassigned payments"],
    "bank": [
        *("Reconciliation", "Bank statements", "Own accounts"),
        *("Lines of bank statements", "Rejected bank statements"),
    ],
    "inbox": [
        *(
            "Webhooks",
            "Failures by cause",
            "Conflicting deliveries",
            "Rejected deliveries",
            "Ignored deliveries",
            "Unrecognized deliveries",
            "Operation versions",
            "Suspected duplicates",
        ),
    ],
    "actions": ["Operator actions"],
    "access": ["API keys", "Users", "Groups", "Second factors", "Backup codes"],
    "system": ["Task results", "Heartbeats", "Alerts", "Verifications"],
}


def shown(browser: Client, language: str) -> dict[str, list[tuple[str, str]]]:
    """Return the URLs and names of the tables by section."""
    page = browser.get("/admin/", headers={"Accept-Language": language}).content.decode()
    found = {}
    for part in page.split('<section class="app-')[1:]:
        links = re.findall(r'<a href="([^"]+)">([^<]+)</a>', part.partition("</section>")[0])
        found[part.partition(" ")[0]] = [(address, name[:1].upper() + name[1:]) for address, name in links]
    return found


def test_tables_are_grouped_by_purpose() -> None:
    found = shown(superuser_client(), "en")
    assert {label: [name for _, name in links] for label, links in found.items()} == SHOWN
    assert list(found) == list(SHOWN)


def test_order_is_the_same_in_every_language() -> None:
    admin_client = superuser_client()
    english, russian = shown(admin_client, "en"), shown(admin_client, "ru")
    assert [[address for address, _ in links] for links in english.values()] == [
        [address for address, _ in links] for links in russian.values()
    ]
    names = [name for links in russian.values() for _, name in links]
    assert [name for name in names if name.isascii()] == []


def test_section_without_tables_is_omitted() -> None:
    assert list(shown(staff_client("view_payment"), "en")) == ["money"]
    assert shown(staff_client(name="ivan"), "en") == {}


def test_unlisted_table_is_in_the_system_section() -> None:
    model = {"name": "new", "object_name": "New", "admin_url": "/new/"}
    listed = sections.group_by_purpose([{"app_label": "new", "name": "new", "models": [model]}])
    assert [(section["app_label"], section["models"]) for section in listed] == [("system", [model])]
