"""No admin URL that a user can type, and no form, fails with a 500.

Every route × users × wrong keys, parameters, forms and methods, drawn at random with a fixed seed. The
superuser sends five times as many requests as the others. `ADMIN_REQUESTS` in the environment is their number
in the long test.
"""

import os
import random
import sys
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any
from urllib.parse import urlencode

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import transaction
from django.test import Client

from tests import admin_rows
from tests.admin_client import staff_client, superuser_client
from tests.markers import sqlite_run_only
from tests.statements.files import document, section, statement

pytestmark = pytest.mark.django_db
REQUESTS_PER_USER = int(os.environ.get("ADMIN_REQUESTS", "600"))
BIG = "9" * 30
WORDS = [
    *("", "abc", "0", "-1", BIG, f"-{BIG}", "9223372036854775807", "9223372036854775808", "1.5", "1e400"),
    *("NaN", "None", "1,2", "_2F", "replay", "ingest", "00000000-0000-0000-0000-000000000000", "../.."),
    *("\0", "a\0b", "'", '"', "%", "\\", "<b>", "٣", "\N{BOMB}", "\ud800", "a" * 1000, "a " * 1000, "//e.x/"),
    *("javascript:x", "http://[::1", "0001-01-01", "9999-12-31", "99999-01-01"),
    *("0001-01-01 00:00:00+14:00", "9999-12-31 23:59:59-14:00"),
    *("post", "take_back", "unmatch", "missing_webhook", "matched", "not_on_statement"),
    *("2026-03-02", "2026-03-02.1", "-2026-03-02.9223372036854775808"),
]
NAMES = [
    *("o", "p", "q", "e", "all", "_popup", "_to_field", "_changelist_filters", "_facets", "next", "ids"),
    *("term", "app_label", "model_name", "field_name", "first", "last", "before", "encoding", "received"),
    *(
        "error_fingerprint",
        "id__gte",
        "received_at__gte",
        "webhook__exact",
        "resolved_by__isempty",
        "status__exact",
    ),
    *("created_at__gte", "is_staff__exact", "groups__id__exact", "groups__isnull", "received_at__year"),
    *("id__in_literals", "id__in", "pk"),
    *("account", "bucket", "row", "chosen", "at", "month", "verdict__exact", "is_withdrawn__exact"),
]
FORM = [
    *("action", "index", "select_across", "_selected_action", "reason", "ids", "post", "confirmed"),
    *("language", "zone", "next", "username", "password", "otp_token", "_save", "_continue", "_popup"),
    "_to_field",
    *("user", "groups", "user_permissions", "permissions", "name", "scopes", "expires_at_0", "expires_at_1"),
    *("last_login_0", "last_login_1", "date_joined_0", "date_joined_1", "email", "usable_password"),
    *("password1", "password2", "old_password", "new_password1", "new_password2", "token_set-TOTAL_FORMS"),
    *("token_set-INITIAL_FORMS", "token_set-0-id", "token_set-0-token", "token_set-0-device"),
    *("initial-confirmed", "confirmed", "is_superuser", "is_active"),
    *("digest", "part", "file", "number", "bank", "since", "until"),
]
ACTIONS = ["delete_selected", "replay_selected", "dismiss_selected", "resolve_selected", "revoke_selected"]
FORM_TYPE = "application/x-www-form-urlencoded"
TYPES = [
    *(f"{FORM_TYPE}; charset=utf-16", f"{FORM_TYPE}; charset=nonsense", "text/plain", "application/json"),
    *("multipart/form-data", "multipart/form-data; boundary=x", "multipart/form-data; boundary=\x80", ""),
]
METHODS = ["HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE"]
ZONES = ["UTC", "Pacific/Kiritimati", "Pacific/Niue", "nonsense"]
USERS: dict[str, Callable[[], Client]] = {
    "superuser": superuser_client,
    "operator": lambda: staff_client(
        *(*views(), "replay_webhook", "dismiss_webhook", "resolve_conflict"),
        *("settle_line", "add_bankstatement", "accept_statement", "add_ownaccount"),
        name="boris",
    ),
    "auditor": lambda: staff_client(*views(), name="clara"),
    "clerk": lambda: staff_client(
        "add_user", "change_user", "delete_user", "add_apikey", "view_apikey", name="dora"
    ),
    "one permission": lambda: staff_client("view_webhook", name="emil"),
    "anonymous": Client,
}


def views() -> list[str]:
    return [f"view_{model._meta.model_name}" for model in admin_rows.registered_models()]


@pytest.fixture(autouse=True)
def rows() -> None:
    superuser_client("first")
    admin_rows.create_one_of_each()


def keys_of(route: str) -> list[str]:
    model = admin_rows.model_of_route(route)
    return [str(row.pk) for row in model._default_manager.all()[:2]] if model else []


def status(browser: Client, method: str, path: str, form: Any, content_type: str) -> int:
    """Return the status; the response is read completely and its writes are rolled back."""
    sent = urlencode(form or {}, doseq=True, errors="replace")
    with transaction.atomic():
        response: Any = browser.generic(method, path, sent, content_type)
        if response.streaming:
            b"".join(response)
        transaction.set_rollback(True)
    return int(response.status_code)


def random_requests(routes: list[str]) -> Iterator[tuple[str, str, Any]]:
    """Yield (method, path, form) of wrong requests, endlessly."""
    rng = random.Random(7)
    keys = {route: keys_of(route) for route in routes}
    while True:
        route = rng.choice(routes)
        key = rng.choice([*keys[route], *keys[route], *keys[route], *WORDS])
        path = admin_rows.fill_route(route, quoted(key))
        names = rng.sample(NAMES, rng.choice([0, 1, 1, 2]))
        query = urlencode([(name, rng.choice(WORDS)) for name in names], errors="replace")
        path += f"?{query}" if query else ""
        match rng.choice(["GET", "GET", "POST", "action", "other"]):
            case "GET":
                yield "GET", path, None
            case "POST":
                fields = rng.sample(FORM, rng.randrange(8))
                yield "POST", path, [(name, rng.choice(WORDS)) for name in fields]
            case "action":
                ticked = [rng.choice([*WORDS, *keys[route]]) for _ in range(rng.randrange(3))]
                more = {
                    "select_across": rng.choice(["0", "1", "x"]),
                    "index": rng.choice(["0", *WORDS]),
                }
                yield "POST", path, {"action": rng.choice(ACTIONS), "_selected_action": ticked, **more}
            case _:
                yield rng.choice(METHODS), path, None


def quoted(text: str) -> str:
    return urlencode({"": text}, errors="replace")[1:].replace("+", "%20")


def wrong_urls() -> Iterator[str]:
    """Yield each route with each wrong key."""
    for route in admin_rows.admin_routes():
        yield admin_rows.fill_route(route, "1")
        if "<" in route:
            yield from (admin_rows.fill_route(route, quoted(word)) for word in WORDS)


def wrong_forms(browser: Client, routes: list[str]) -> Iterator[tuple[str, str, Any]]:
    """Yield each form of a page with one field changed to each wrong value."""
    for route, key in [(each, key) for each in routes for key in keys_of(each) or ["replay"]]:
        response: Any = browser.get(path := admin_rows.fill_route(route, key))
        found = (response.context or {}).get("adminform") or (response.context or {}).get("form")
        if not (form := getattr(found, "form", found)):
            continue
        whole = {name: value for name, value in form.initial.items() if isinstance(value, str | int)}
        whole |= {"csrfmiddlewaretoken": "", "token_set-TOTAL_FORMS": "1", "token_set-INITIAL_FORMS": "0"}
        whole |= (
            dict.fromkeys(("username", "name", "scopes", "password1", "password2", "reason"), "word") | whole
        )
        subfields = [
            f"{name}_{n}" for name, field in form.fields.items() for n in range(2) if hasattr(field, "fields")
        ]
        for field, word in product([*form.fields, *subfields, *FORM], WORDS):
            yield "POST", path, whole | {field: word}


@pytest.mark.parametrize("count", [25, pytest.param(REQUESTS_PER_USER, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "name", [name if name == "superuser" else pytest.param(name, marks=sqlite_run_only) for name in USERS]
)
def test_wrong_admin_requests_get_no_500(name: str, count: int) -> None:
    browser = USERS[name]()
    browser.raise_request_exception = False
    rng = random.Random(name)
    wrong = random_requests(admin_rows.admin_routes())
    sent = [next(wrong) for _ in range(count)]
    if name == "superuser":
        addresses = [("GET", address, None) for address in wrong_urls()]
        routes = admin_rows.admin_routes()
        for more in (addresses, list(wrong_forms(browser, rng.sample(routes, min(len(routes), count))))):
            sent += rng.sample(more, min(len(more), 2 * count))
    failed = []
    for method, path, form in sent:
        browser.cookies["time_zone"] = rng.choice(ZONES)
        content_type = rng.choice([*[FORM_TYPE] * 20, *TYPES])
        if (code := status(browser, method, path, form, content_type)) >= 500:
            failed.append((code, method, path[:300], form, content_type))
    sys.stdout.write(f"{name}: {len(sent)} requests, {len(failed)} failed\n")
    assert failed == []


def test_wrong_uploads_get_no_500() -> None:
    browser = superuser_client()
    whole = statement(section(), document()).encode("cp1251")
    bodies = [b"", b"\0", bytes(range(256)), whole, whole[:-20], whole * 2, "выписка".encode("utf-16")]
    for part, body, name in [
        *product([None, "file"], bodies, ["выписка.txt"]),
        *product(["match", "\0"], [b""], ["выписка.txt"]),
        *product([None, "file"], [whole], ["a" * 300, "<b>", "\0"]),
    ]:
        for count in (1, 0, 2) if body == whole else (1,):
            files = {"file": [SimpleUploadedFile(name, body)] * count} | ({"part": part} if part else {})
            response = browser.post("/admin/statements/bankstatement/add/", files)
            assert response.status_code in {200, 400}, (part, name, body[:20], count)
