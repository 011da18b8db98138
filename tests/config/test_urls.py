import json
from html import unescape

import pytest
from django.conf import settings as django_settings
from django.db import InterfaceError, OperationalError
from django.test import Client, override_settings

from tests.factories import ROMASHKA
from tests.markers import sqlite_run_only

pytestmark = sqlite_run_only


def test_root_redirects_to_the_admin() -> None:
    response = Client().get("/")
    assert (response.status_code, response["Location"]) == (302, "/admin/")


def test_healthz_needs_no_database() -> None:
    response = Client().get("/healthz")
    assert (response.status_code, json.loads(response.content)) == (200, {"status": "ok"})


@pytest.mark.django_db
def test_readyz_succeeds_with_a_migrated_database() -> None:
    assert Client().get("/readyz").status_code == 200


@pytest.mark.django_db(transaction=True)
def test_readyz_fails_with_a_missing_migration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.health.MigrationExecutor.migration_plan", lambda *_: ["0001_initial"])

    response = Client().get("/readyz")

    assert response.status_code == 503
    assert json.loads(response.content) == {"error": "migrations are missing: manage.py migrate"}


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nothing", 404),
        ("/api/nothing", 404),
        ("/api/webhook/bank", 405),
        ("/api", 404),
        ("/api/", 404),
        ("/api/no%0Athing%0A", 404),
        (f"/api/organizations/{ROMASHKA}/balance/history/?" + "&".join(f"x{n}=1" for n in range(1001)), 400),
    ],
)
def test_error_response_is_json(path: str, status: int) -> None:
    response = Client().get(path)
    assert (response.status_code, response["Content-Type"]) == (status, "application/json")
    assert set(json.loads(response.content)) == {"error"}


@pytest.mark.parametrize(
    ("exc", "status", "heading"),
    [
        (InterfaceError("connection already closed"), 503, "The database is temporarily unavailable"),
        (OperationalError(1054, "Unknown column"), 500, "Internal error"),
        (RuntimeError("inner words"), 500, "Internal error"),
    ],
)
def test_error_in_the_admin_is_an_html_page(
    exc: Exception, status: int, heading: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise exc

    monkeypatch.setattr("django.contrib.sessions.backends.db.SessionStore.load", fail)
    browser = Client(raise_request_exception=False)
    browser.cookies[django_settings.SESSION_COOKIE_NAME] = "anything"

    response = browser.get("/admin/")

    assert (response.status_code, response["Content-Type"]) == (status, "text/html; charset=utf-8")
    assert f"<h1>{heading}</h1>" in unescape(response.content.decode())
    assert str(exc.args[-1]) not in unescape(response.content.decode())
    assert ("Retry-After" in response) == (status == 503)


@pytest.mark.parametrize(
    ("path", "status"),
    [("/api/webhook/sberbank/", 404), (f"/api/organizations/{ROMASHKA}/balance/", 405), ("/healthz", 405)],
)
def test_post_to_another_path_gets_a_json_error(path: str, status: int) -> None:
    response = Client(enforce_csrf_checks=True).post(path)
    assert (response.status_code, response["Content-Type"]) == (status, "application/json")


@override_settings(ALLOWED_HOSTS=["prihod.example"])
def test_unknown_host_in_the_admin_gets_400_as_a_page() -> None:
    response = Client().get("/admin/", headers={"host": "evil.example"})
    assert (response.status_code, response["Content-Type"]) == (400, "text/html; charset=utf-8")
    assert "evil.example" not in response.content.decode()


@pytest.mark.django_db
@override_settings(ALLOWED_HOSTS=["prihod.example"])
@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/healthz/", "/readyz/", "/metrics/"])
@pytest.mark.parametrize("host", ["10.0.0.5:8000", "[::1]:8000", "pod_7", ""])
@pytest.mark.parametrize("debug", [False, True])
def test_probes_accept_any_host(path: str, host: str, debug: bool) -> None:
    with override_settings(DEBUG=debug, METRICS_TOKEN="t"):
        response = Client().get(path, headers={"host": host, "authorization": "Bearer t"})
    assert response.status_code == 200


@pytest.mark.parametrize(
    "path", ["/api", "/api/", "/api/nothing", "/api/no%0Athing", "/api/webhook/sberbank"]
)
@override_settings(DEBUG=True)
def test_unknown_path_below_api_gets_a_json_404_with_debug(path: str) -> None:
    response = Client().get(path)
    assert (response.status_code, json.loads(response.content)) == (404, {"error": "Not found"})


@override_settings(ALLOWED_HOSTS=["prihod.example"])
@pytest.mark.parametrize("path", ["/api", "/api/", "/api/docs/", "/api/nothing"])
@pytest.mark.parametrize("debug", [False, True])
def test_unknown_host_below_api_gets_a_json_400_with_debug(path: str, debug: bool) -> None:
    with override_settings(DEBUG=debug):
        response = Client().post(path, headers={"host": "evil.example"})
    assert (response.status_code, json.loads(response.content)) == (400, {"error": "malformed request"})
