"""The read views without an API key and with invalid, insufficient and valid ones."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from django.core import checks
from django.db import connection
from django.http import HttpResponse
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from api.keys import issue, revoke
from api.models import READ_ALL, ApiKey
from api.throttling import FAILURES_PER_MINUTE_MAX
from config.env import read_auth
from tests.factories import ROMASHKA, VASILEK, make_organizations, make_webhook, post_payments, terms

pytestmark = pytest.mark.django_db

BALANCE = "/api/organizations/{}/balance/"
HISTORY = "/api/organizations/{}/balance/history/"
OPERATION = "/api/operations/{}/"


@pytest.fixture(autouse=True)
def require_key() -> Iterator[None]:
    with override_settings(READ_AUTH="key"):
        yield


def read(path: str, key: str | None = None, **headers: str) -> HttpResponse:
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    return Client().get(path, headers=headers)  # type: ignore[return-value]  # a subclass in effect


def snapshot(response: Any) -> tuple[int, bytes, dict[str, str]]:
    return response.status_code, response.content, dict(response.headers)


def paths_of(inn: str) -> list[str]:
    """Create a posted payment and one in the inbox; return all read paths of their organization."""
    payment = terms(inn=inn)
    make_webhook(payment)
    post_payments(payment)
    return [BALANCE.format(inn), HISTORY.format(inn), OPERATION.format(payment.operation_id)]


def test_valid_key_can_read() -> None:
    paths = paths_of(ROMASHKA)
    own, everything = issue("shop", ROMASHKA)[1], issue("accounting", READ_ALL)[1]

    for path in paths:
        assert read(path, own).status_code == read(path, everything).status_code == 200
    assert read(paths[0], Authorization=f"bearer  {own}").status_code == 200


def test_all_invalid_keys_get_the_same_401() -> None:
    paths = [*paths_of(ROMASHKA), BALANCE.format(VASILEK), OPERATION.format(uuid4())]
    revoked, old = issue("former", READ_ALL), issue("old", READ_ALL)
    revoke(revoked[0].prefix)
    ApiKey.objects.filter(pk=old[0].pk).update(expires_at=timezone.now())
    right = issue("accounting", READ_ALL)[1]
    invalid_keys = [
        None,
        "",
        "x",
        right[:-1] + ("A" if right[-1] != "A" else "B"),
        "prihod_0123456789ab_" + "A" * 43,
    ]

    responses = [snapshot(read(path, key)) for path in paths for key in [*invalid_keys, revoked[1], old[1]]]
    responses += [
        snapshot(read(paths[0], Authorization=f"{scheme} {right}")) for scheme in ("Basic", "Token")
    ]

    status, body, headers = responses[0]
    assert (status, json.loads(body)) == (401, {"error": "a valid API key is needed"})
    assert headers["WWW-Authenticate"] == "Bearer"
    assert all(each == responses[0] for each in responses)


def test_unknown_and_invisible_objects_get_the_same_404() -> None:
    forbidden, missing = paths_of(VASILEK), [BALANCE, HISTORY, OPERATION]
    make_organizations(ROMASHKA)
    key = issue("shop", ROMASHKA)[1]

    for known, pattern in zip(forbidden, missing, strict=True):
        unknown = pattern.format(uuid4() if pattern is OPERATION else "7700000000")
        responses = []
        queries = []
        for path in (known, unknown):
            read(path, key)  # so that a row of this minute exists
            with CaptureQueriesContext(connection) as captured:
                responses.append(snapshot(read(path, key)))
            queries.append([query["sql"].split(" WHERE ")[0] for query in captured])
        assert responses[0] == responses[1] == snapshot(read(pattern.format("garbage"), key))
        assert responses[0][0] == 404
        assert queries[0] == queries[1]


def test_key_can_name_an_organization_before_its_first_payment() -> None:
    key = issue("shop", ROMASHKA)[1]
    assert read(BALANCE.format(ROMASHKA), key).status_code == 404

    post_payments(terms(100_00))
    assert json.loads(read(BALANCE.format(ROMASHKA), key).content) == {"inn": ROMASHKA, "balance": 100}


@override_settings(READ_AUTH="none")
def test_invalid_key_is_rejected_with_read_auth_none() -> None:
    (path, *_) = paths_of(ROMASHKA)

    assert read(path).status_code == 200
    assert read(path, "wrong").status_code == 401
    assert read(path, issue("shop", VASILEK)[1]).status_code == 404


def test_read_records_the_key_use_once() -> None:
    (path, *_) = paths_of(ROMASHKA)
    _, key = issue("shop", ROMASHKA)
    read(path, key)
    first = ApiKey.objects.get().last_used_at

    with CaptureQueriesContext(connection) as queries:
        read(path, key)

    assert first is not None
    assert ApiKey.objects.get().last_used_at == first
    assert [query["sql"][:6] for query in queries] == ["SELECT", "SELECT"]


# --- throttling ------------------------------------------------------------------------------------------


@pytest.fixture
def within_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.throttling.time.time", lambda: 1_800_000_010.0)


def test_repeated_bad_keys_are_throttled_and_valid_keys_are_not(within_a_minute: None) -> None:
    (path, *_) = paths_of(ROMASHKA)
    _, key = issue("shop", ROMASHKA)
    guess = key[:-1] + ("A" if key[-1] != "A" else "B")

    statuses = {read(path, guess).status_code for _ in range(FAILURES_PER_MINUTE_MAX)}
    limited = read(path, guess)

    assert statuses == {401}
    assert (limited.status_code, limited["Retry-After"]) == (429, "50")
    assert json.loads(limited.content) == {"error": "too many failed requests"}
    assert read(path, key).status_code == 200  # from the same address, with the same prefix


@pytest.fixture
def over_limit(monkeypatch: pytest.MonkeyPatch, within_a_minute: None) -> None:
    monkeypatch.setattr("api.throttling.FAILURES_PER_MINUTE_MAX", 0)
    read(BALANCE.format(VASILEK))


def test_all_failures_get_the_same_429_over_the_limit(over_limit: None) -> None:
    forbidden = paths_of(VASILEK)
    key = issue("shop", ROMASHKA)[1]

    for path in [*forbidden, BALANCE.format("7700000000"), OPERATION.format(uuid4())]:
        assert read(path, key).status_code == 429
        assert read(path, "wrong").status_code == read(path).status_code == 429


def test_successful_reads_and_read_all_keys_are_not_throttled(over_limit: None) -> None:
    paths = paths_of(ROMASHKA)
    everything, own = issue("accounting", READ_ALL)[1], issue("shop", ROMASHKA)[1]

    assert {read(path, own).status_code for path in paths} == {200}
    assert read(BALANCE.format(VASILEK), everything).status_code == 404


# --- settings --------------------------------------------------------------------------------------------


def test_read_auth_none_in_production_is_a_check_warning() -> None:
    def is_warned() -> bool:
        return "api.W001" in [message.id for message in checks.run_checks(tags=["security"])]

    with override_settings(READ_AUTH="none", DEBUG=False):
        assert is_warned()
    with override_settings(READ_AUTH="key", DEBUG=False):
        assert not is_warned()
    with override_settings(READ_AUTH="none", DEBUG=True):
        assert not is_warned()


def test_read_auth_is_key_or_none() -> None:
    assert [read_auth("key"), read_auth("none")] == ["key", "none"]
    with pytest.raises(ValueError, match="yes"):
        read_auth("yes")
