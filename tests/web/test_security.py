"""Security settings: the deployment check, response headers, TLS redirects and CSRF exemptions."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import Client, override_settings
from django.urls import URLPattern, URLResolver, get_resolver

from config import components
from tests.admin_client import superuser_client
from tests.factories import ROMASHKA
from tests.harness.servers import ROOT
from tests.markers import sqlite_run_only

pytestmark = sqlite_run_only

BEHIND_A_PROXY = {"SESSION_COOKIE_SECURE": True, **components.behind_tls_proxy()}


def check_deploy(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    production = {
        "DEBUG": "0",
        "SECRET_KEY": "0123456789abcdef" * 4,
        "DATABASE_URL": f"sqlite:///{tmp_path}/check.sqlite3",
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "ALLOWED_HOSTS": "prihod.example",
        "WEBHOOK_SECRETS": "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz",
    }
    return subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        cwd=ROOT,
        env=os.environ | production | environment,
        check=False,
        capture_output=True,
        text=True,
    )


@pytest.mark.process
def test_deployment_check_passes_behind_a_tls_proxy(tmp_path: Path) -> None:
    checked = check_deploy(tmp_path, BEHIND_TLS_PROXY="1")
    assert checked.returncode == 0, checked.stderr


@pytest.mark.process
def test_deployment_check_fails_without_tls(tmp_path: Path) -> None:
    checked = check_deploy(tmp_path, BEHIND_TLS_PROXY="0")
    assert checked.returncode == 1
    assert "security.W012" in checked.stderr  # SESSION_COOKIE_SECURE


@pytest.mark.parametrize("path", ["/healthz", "/api/webhook/bank/", "/api/nothing"])
def test_api_and_probes_are_not_redirected_to_tls(path: str) -> None:
    with override_settings(**BEHIND_A_PROXY):
        assert Client().get(path).status_code in {200, 404, 405}


def test_browsers_are_redirected_to_tls_with_hsts() -> None:
    with override_settings(**BEHIND_A_PROXY):
        response = Client().get("/admin/login/")
        assert (response.status_code, response["Location"]) == (301, "https://testserver/admin/login/")
        response = Client().get("/admin/login/", headers={"X-Forwarded-Proto": "https"})
        assert response.status_code == 200
        assert response["Strict-Transport-Security"] == f"max-age={components.HSTS_SECONDS}"
        assert response.cookies["csrftoken"]["secure"]


@pytest.mark.django_db
def test_development_works_without_tls() -> None:
    response = superuser_client().get("/admin/")
    assert response.status_code == 200
    assert "Strict-Transport-Security" not in response


@pytest.mark.django_db
def test_every_page_has_a_strict_csp() -> None:
    for path in ["/admin/login/", "/"]:
        policy = Client().get(path)["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy


@pytest.mark.django_db
@pytest.mark.parametrize(
    "path", [f"/api/organizations/{ROMASHKA}/balance/", f"/api/organizations/{ROMASHKA}/balance/history/"]
)
def test_balances_are_not_cached_or_sniffed(path: str) -> None:
    response = Client().get(path)
    assert (response["Cache-Control"], response["X-Content-Type-Options"]) == ("no-store", "nosniff")


def test_templates_have_no_inline_scripts_or_styles() -> None:
    templates = [page for page in ROOT.glob("*/templates/**/*.html") if ".venv" not in page.parts]
    assert templates
    for page in templates:
        text = page.read_text()
        assert " style=" not in text, page
        assert "<style" not in text, page
        assert " on" + "click=" not in text, page
        assert text.count("<script") == text.count("<script src="), page


# Webhook endpoints have their own authentication, and the others only read.
EXEMPT = ("api/", "^api(?:/", "healthz", "readyz", "metrics")


def views(patterns: list[Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for pattern in patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from views(pattern.url_patterns, route)
        elif isinstance(pattern, URLPattern):
            yield route, pattern.callback


def test_only_endpoints_and_reads_are_csrf_exempt() -> None:
    exempt = {
        route for route, view in views(get_resolver().url_patterns) if getattr(view, "csrf_exempt", False)
    }
    assert [route for route in exempt if not route.startswith(EXEMPT)] == []
    assert "django.middleware.csrf.CsrfViewMiddleware" in settings.MIDDLEWARE


@pytest.mark.django_db
def test_only_webhook_endpoints_accept_a_post_without_a_csrf_token() -> None:
    """All other exempt views reject methods that could change data."""
    for route, view in views(get_resolver().url_patterns):
        if not getattr(view, "csrf_exempt", False) or route.startswith("api/webhook/"):
            continue
        path = "/" + route.replace("<str:inn>", ROMASHKA).replace("<str:operation_id>", "1")
        for method in ("post", "put", "patch", "delete"):
            response = getattr(Client(enforce_csrf_checks=True), method)(path.replace("<path:rest>", "x"))
            assert response.status_code in {401, 403, 404, 405}, (method, path)  # 401 without an API key


@pytest.mark.django_db
def test_form_without_csrf_token_is_rejected() -> None:
    client = Client(enforce_csrf_checks=True)
    assert client.post("/admin/login/", {"username": "anna", "password": "x"}).status_code == 403
