"""The lookups that a URL of an admin list may execute: those of its filters and of links on our pages."""

import re
from collections.abc import Iterator

import pytest
from django.contrib import admin
from django.contrib.admin.exceptions import DisallowedModelAdminLookup
from django.contrib.auth.models import User
from django.db import connection
from django.db.models import Model
from django.http import HttpResponse
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext

from api.models import ApiKey
from core.admin_lookups import SEARCH_CHARS_MAX, StrictAdmin
from ingest.models import Webhook
from tests import admin_rows
from tests.admin_client import admin_url, staff_client, superuser_client
from tests.markers import sqlite_run_only

pytestmark = pytest.mark.django_db
OF_DEVICES = {
    *("created_at__gte", "created_at__lt", "created_at__isnull", "last_used_at__gte", "last_used_at__lt"),
    *("last_used_at__isnull", "confirmed__exact", "confirmed__isnull"),
}
ALLOWED = {
    "auth.User": {
        *("is_staff__exact", "is_staff__isnull", "is_superuser__exact", "is_superuser__isnull"),
        *("is_active__exact", "is_active__isnull", "groups__id__exact", "groups__isnull"),
    },
    "django_celery_results.TaskResult": {"status", "status__isnull"},
    "ingest.OperatorAction": {"kind__exact", "kind__isnull"},
    "ingest.ConflictingDelivery": {"resolved_by__isempty", "received_at__gte", "webhook__exact"},
    "ingest.IgnoredDelivery": {"received_at__gte"},
    "ingest.RejectedDelivery": {"received_at__gte"},
    "ingest.UnrecognizedDelivery": {"state", "received", "source"},
    "ingest.OperationVersion": {"decision__exact", "decision__isnull", "outcome__exact", "outcome__isnull"},
    "ingest.SuspectedDuplicate": {"state__exact", "state__isnull"},
    "ingest.Webhook": {"status__exact", "status__isnull", "received", "error_fingerprint"},
    "ledger.Payment": {"id__gte"},
    "ledger.UnassignedPayment": {"id__gte"},
    "statements.BankStatement": {"verdict__exact", "verdict__isnull"},
    "otp_static.StaticDevice": OF_DEVICES,
    "otp_totp.TOTPDevice": OF_DEVICES,
}
LOOKUPS = [
    *(
        "",
        "exact",
        "iexact",
        "contains",
        "icontains",
        "startswith",
        "istartswith",
        "endswith",
        "regex",
        "iregex",
    ),
    *(
        "gt",
        "gte",
        "lt",
        "lte",
        "range",
        "in",
        "isnull",
        "in_literals",
        "year",
        "date",
        "hour__gte",
        "isempty",
        "search",
    ),
]
SLOW = "(.*)*(.*)*(.*)*x$"


def lookups(model: type[Model]) -> Iterator[str]:
    """Yield lookups of each field, and of each field of each related model."""
    paths = ["pk", *_fields(model)]
    for field in model._meta.get_fields():
        if field.is_relation and isinstance(field.related_model, type):
            paths += [f"{field.name}__{path}" for path in ("pk", *_fields(field.related_model))]
    for path in paths:
        yield from (f"{path}__{lookup}" if lookup else path for lookup in LOOKUPS)


def _fields(model: type[Model]) -> list[str]:
    return [field.name for field in model._meta.get_fields()]


models = pytest.mark.parametrize("model", admin_rows.registered_models(), ids=lambda model: model._meta.label)


@sqlite_run_only  # executes no query
@models
def test_only_lookups_of_filters_and_links_are_allowed(model: type[Model], rf: RequestFactory) -> None:
    pages, request = admin.site._registry[model], rf.get("/")
    allowed = {lookup for lookup in lookups(model) if pages.lookup_allowed(lookup, SLOW, request)}
    assert allowed <= ALLOWED.get(model._meta.label, set())


def open_list(model: type[Model], query: dict[str, str]) -> HttpResponse:
    """Answer as a superuser's list, without rendering the page; raise what a page would answer 400."""
    request = RequestFactory().get(admin_url(model, "changelist"), query)
    request.user = User(is_superuser=True, is_staff=True)
    request.user.is_verified = lambda: True
    return admin.site._registry[model].changelist_view(request)


@sqlite_run_only
@models
def test_other_lookup_gets_400_and_executes_nothing(model: type[Model]) -> None:
    allowed = ALLOWED.get(model._meta.label, set())
    others = {f"{field}{lookup}" for field in _fields(model) for lookup in ("__regex", "__in_literals", "")}
    for lookup in sorted(others - allowed):
        with CaptureQueriesContext(connection) as queries, pytest.raises(DisallowedModelAdminLookup):
            open_list(model, {lookup: SLOW})
        assert not any("(.*)" in query["sql"] for query in queries.captured_queries)
    assert superuser_client().get(admin_url(model, "changelist"), {lookup: SLOW}).status_code == 400


def test_allowed_lookup_accepts_any_value() -> None:
    for model in admin_rows.registered_models():
        for lookup in ALLOWED.get(model._meta.label, ()):
            for value in ("", "1", SLOW, "9" * 30, "0001-01-01 00:00:00+14:00"):
                assert open_list(model, {lookup: value}).status_code in {200, 302}, (lookup, value)


def test_every_registered_admin_is_strict() -> None:
    """Covers the pages of installed packages, too."""
    assert [
        model for model, pages in admin.site._registry.items() if not isinstance(pages, StrictAdmin)
    ] == []


def test_every_link_on_admin_pages_works() -> None:
    admin_client = superuser_client()
    admin_rows.create_one_of_each()
    pages = {"/admin/", *(admin_url(model, "changelist") for model in admin_rows.registered_models())}
    pages |= {
        admin_url(model, "change", row.pk)
        for model in admin_rows.registered_models()
        for row in model._default_manager.all()
    }
    links = {link for path in pages for link in links_of(admin_client, path)} - pages
    one_of_each = {kind_of(link): link for link in sorted(links)}.values()
    assert len(one_of_each) > 40
    assert {
        path: status for path in one_of_each if (status := admin_client.get(path).status_code) != 200
    } == {}


def kind_of(link: str) -> str:
    """Return the link without its numbers and its parameters' values: a calendar has hundreds of one kind."""
    return re.sub(r"=[^&]*|\d+", "", link)


def links_of(browser: Client, path: str) -> set[str]:
    response = browser.get(path)
    assert response.status_code == 200, path
    if response.streaming or "html" not in response["Content-Type"]:
        return set()
    found = {link.replace("&amp;", "&") for link in re.findall(r'href="([^"#]+)"', response.content.decode())}
    here = path.partition("?")[0]
    absolute = {here + link if link.startswith("?") else link for link in found}
    return {link for link in absolute if link.startswith("/admin/") and "logout" not in link}


@pytest.mark.parametrize("lookup", ["digest__startswith", "scopes__regex", "digest", "last_used_at__gte"])
def test_view_permission_allows_no_lookup_of_hidden_columns(lookup: str) -> None:
    assert staff_client("view_apikey").get(admin_url(ApiKey, "changelist"), {lookup: "a"}).status_code == 400


@pytest.mark.parametrize("model", [Webhook, User, ApiKey])
def test_search_text_is_bounded(model: type[Model]) -> None:
    admin_client = superuser_client()
    assert (
        admin_client.get(admin_url(model, "changelist"), {"q": "a " * (SEARCH_CHARS_MAX // 2)}).status_code
        == 200
    )
    assert (
        admin_client.get(admin_url(model, "changelist"), {"q": "a" * (SEARCH_CHARS_MAX + 1)}).status_code
        == 400
    )
    assert admin_client.get(admin_url(model, "changelist"), {"q": "a\0"}).status_code == 400


@pytest.mark.parametrize("query", ["q=a%00", "q=" + "a" * 301, "nonsense=1", "received=nonsense"])
def test_action_on_all_matches_of_an_invalid_query_is_rejected(query: str) -> None:
    response = superuser_client().get(f"/admin/ingest/webhook/action/replay/?all=1&{query}")
    assert response.status_code in {400, 404}


@pytest.mark.parametrize("key", ["", "abc", "9" * 30, "\0", "1.5"])
def test_action_on_a_malformed_primary_key_is_rejected(key: str) -> None:
    selected = {"action": "replay_selected", "_selected_action": key, "index": "0"}
    assert superuser_client().post(admin_url(Webhook, "changelist"), selected).status_code == 400
