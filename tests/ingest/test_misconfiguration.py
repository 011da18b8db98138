"""Deliveries that a setting prevents from being stored: the bank retries, and operators are alerted."""

import json
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError
from django.http import HttpResponse
from django.test import Client
from prometheus_client import REGISTRY
from pytest_django import Settings

from core.db import clock
from core.delivery_auth import DeliveryAuth, parse_network, parse_secret
from core.log_throttle import LogThrottle
from ingest import misconfiguration
from ingest.models import Misconfiguration, Webhook
from monitoring import problems
from monitoring.doctor import examine
from monitoring.problem import Problem, Severity
from monitoring.stats import Stats
from tests.factories import payment_body, terms
from tests.markers import every_database, sqlite_run_only

pytestmark = [pytest.mark.django_db, sqlite_run_only]
NEW_NAME = "pay.newname.example"
TOKEN = "long-enough-a-token"
REFUSED = {"error": "not configured for this delivery yet, please send it again"}


@pytest.fixture(autouse=True)
def known_name(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.ALLOWED_HOSTS = ["prihod.example"]
    monkeypatch.setattr(misconfiguration, "throttle", LogThrottle())


def deliver(path: str = "/api/webhook/bank/", host: str = NEW_NAME, **headers: str) -> HttpResponse:
    client = Client(enforce_csrf_checks=True)
    response: Any = client.post(
        path, payment_body(terms()), "application/json", headers={"host": host, **headers}
    )
    return response  # type: ignore[no-any-return]


def counted(setting: str) -> float:
    return REGISTRY.get_sample_value("prihod_misconfigured_deliveries_total", {"setting": setting}) or 0.0


def found() -> list[Problem]:
    found = problems.data_problems(Stats(clock.database_now()))
    return [problem for problem in found if problem.cause == "misconfigured"]


@every_database
@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize(
    "host", [NEW_NAME, "10.0.0.5:8000", "[::1]", "pay_name.example", "", "a b", "x" * 300]
)
def test_unknown_host_is_answered_503_and_recorded(settings: Settings, host: str, debug: bool) -> None:
    settings.DEBUG = debug
    before = counted("ALLOWED_HOSTS")

    response = deliver(host=host)

    assert (response.status_code, response["Retry-After"]) == (503, "5")
    assert json.loads(response.content) == REFUSED
    assert counted("ALLOWED_HOSTS") == before + 1
    assert not Webhook.objects.exists()
    assert Misconfiguration.objects.get().setting == "ALLOWED_HOSTS"


def test_allowed_host_is_stored() -> None:
    assert deliver(host="prihod.example").status_code == 200
    assert Webhook.objects.exists()
    assert found() == []


def test_unknown_host_is_a_problem_for_a_day() -> None:
    deliver()

    (problem,) = found()
    assert problem.severity is Severity.CRITICAL
    assert f"ALLOWED_HOSTS ({NEW_NAME})" in problem.text
    assert any(NEW_NAME in finding.message and finding.remedy for finding in examine())

    Misconfiguration.objects.update(seen_at=clock.database_now() - timedelta(hours=25))
    assert found() == []


def test_unauthenticated_delivery_records_no_misconfiguration(settings: Settings) -> None:
    settings.ENDPOINT_AUTH = {"bank": DeliveryAuth(bearer=[parse_secret(TOKEN)])}

    assert deliver().status_code == 401
    assert found() == []
    assert deliver(authorization=f"Bearer {TOKEN}").status_code == 503
    assert found() != []


def test_missing_credentials_are_answered_503_and_reported(settings: Settings) -> None:
    settings.ENDPOINT_AUTH = {"bank": DeliveryAuth(allow_anonymous=True)}

    response = deliver("/api/webhook/tochka/", host="prihod.example")

    assert (response.status_code, json.loads(response.content)) == (503, REFUSED)
    (problem,) = found()
    assert (problem.severity, "CREDENTIALS (tochka)" in problem.text) == (Severity.WARNING, True)


def test_unknown_client_ip_behind_proxies_is_answered_503(settings: Settings) -> None:
    settings.ENDPOINT_AUTH = {"bank": DeliveryAuth(networks=[parse_network("192.0.2.7")])}
    settings.TRUSTED_PROXIES = 2

    assert deliver(**{"X-Forwarded-For": "192.0.2.7"}).status_code == 503
    assert Misconfiguration.objects.get().setting == "TRUSTED_PROXIES"


@pytest.mark.parametrize("host", ["prihod.example", NEW_NAME])
def test_url_without_trailing_slash_is_the_same_endpoint(host: str) -> None:
    assert deliver("/api/webhook/bank", host=host).status_code == (503 if host == NEW_NAME else 200)


@every_database
def test_misconfigured_deliveries_are_logged_and_stored_once(
    caplog: pytest.LogCaptureFixture, django_assert_num_queries: Any
) -> None:
    deliver()
    caplog.clear()
    with django_assert_num_queries(0):
        for _ in range(20):
            deliver()

    assert [record for record in caplog.records if record.name != "django.request"] == []


def test_misconfiguration_is_answered_503_if_it_cannot_be_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise DatabaseError("gone")

    monkeypatch.setattr(Misconfiguration.objects, "filter", fail)
    response = deliver()
    assert (response.status_code, json.loads(response.content)) == (503, REFUSED)
