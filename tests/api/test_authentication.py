"""What the read views answer without a key, with a wrong one, with another's and with the right one."""

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
def key_needed() -> Iterator[None]:
    with override_settings(READ_AUTH="key"):
        yield


def read(path: str, key: str | None = None, **headers: str) -> HttpResponse:
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    return Client().get(path, headers=headers)  # type: ignore[return-value]  # as good as one


def whole(response: Any) -> tuple[int, bytes, dict[str, str]]:
    return response.status_code, response.content, dict(response.headers)


def paths_of(inn: str) -> list[str]:
    """All that can be read of an organization, which has a payment that was posted and one in the inbox."""
    told = terms(inn=inn)
    make_webhook(told)
    post_payments(told)
    return [BALANCE.format(inn), HISTORY.format(inn), OPERATION.format(told.operation_id)]


def test_the_right_key_reads() -> None:
    paths = paths_of(ROMASHKA)
    own, everything = issue("shop", ROMASHKA)[1], issue("accounting", READ_ALL)[1]

    for path in paths:
        assert read(path, own).status_code == read(path, everything).status_code == 200
    assert read(paths[0], Authorization=f"bearer  {own}").status_code == 200


def test_without_a_valid_key_all_are_refused_alike() -> None:
    paths = [*paths_of(ROMASHKA), BALANCE.format(VASILEK), OPERATION.format(uuid4())]
    revoked, old = issue("former", READ_ALL), issue("old", READ_ALL)
    revoke(revoked[0].prefix)
    ApiKey.objects.filter(pk=old[0].pk).update(expires_at=timezone.now())
    right = issue("accounting", READ_ALL)[1]
    wrong = [
        None,
        "",
        "x",
        right[:-1] + ("A" if right[-1] != "A" else "B"),
        "prihod_0123456789ab_" + "A" * 43,
    ]

    answers = [whole(read(path, key)) for path in paths for key in [*wrong, revoked[1], old[1]]]
    answers += [whole(read(paths[0], Authorization=f"{scheme} {right}")) for scheme in ("Basic", "Token")]

    status, body, headers = answers[0]
    assert (status, json.loads(body)) == (401, {"error": "a valid API key is needed"})
    assert headers["WWW-Authenticate"] == "Bearer"
    assert all(each == answers[0] for each in answers)


def test_unknown_forbidden_and_missing_look_the_same_to_a_key_that_may_not_read_them() -> None:
    forbidden, missing = paths_of(VASILEK), [BALANCE, HISTORY, OPERATION]
    make_organizations(ROMASHKA)
    key = issue("shop", ROMASHKA)[1]

    for known, pattern in zip(forbidden, missing, strict=True):
        unknown = pattern.format(uuid4() if pattern is OPERATION else "7700000000")
        answers = []
        queries = []
        for path in (known, unknown):
            read(path, key)  # counted before, as all but the first of a minute are
            with CaptureQueriesContext(connection) as captured:
                answers.append(whole(read(path, key)))
            queries.append([query["sql"].split(" WHERE ")[0] for query in captured])
        assert answers[0] == answers[1] == whole(read(pattern.format("garbage"), key))
        assert answers[0][0] == 404
        assert queries[0] == queries[1]


def test_a_key_may_be_for_an_organization_that_is_opened_later() -> None:
    key = issue("shop", ROMASHKA)[1]
    assert read(BALANCE.format(ROMASHKA), key).status_code == 404

    post_payments(terms(100_00))
    assert json.loads(read(BALANCE.format(ROMASHKA), key).content) == {"inn": ROMASHKA, "balance": 100}


@override_settings(READ_AUTH="none")
def test_where_no_key_is_needed_a_wrong_one_is_refused_all_the_same() -> None:
    (path, *_) = paths_of(ROMASHKA)

    assert read(path).status_code == 200
    assert read(path, "wrong").status_code == 401
    assert read(path, issue("shop", VASILEK)[1]).status_code == 404


def test_a_read_notes_the_use_of_its_key_once() -> None:
    (path, *_) = paths_of(ROMASHKA)
    _, key = issue("shop", ROMASHKA)
    read(path, key)
    first = ApiKey.objects.get().last_used_at

    with CaptureQueriesContext(connection) as queries:
        read(path, key)

    assert first is not None
    assert ApiKey.objects.get().last_used_at == first
    assert [query["sql"][:6] for query in queries] == ["SELECT", "SELECT"]


# --- the limit on misses ---------------------------------------------------------------------------------


def test_who_keeps_asking_with_bad_keys_is_told_to_wait_and_the_honest_are_not() -> None:
    (path, *_) = paths_of(ROMASHKA)
    _, key = issue("shop", ROMASHKA)
    guess = key[:-1] + ("A" if key[-1] != "A" else "B")

    statuses = [read(path, guess).status_code for _ in range(FAILURES_PER_MINUTE_MAX + 3)]
    limited = read(path, guess)

    # A minute may end meanwhile, and then the count begins again.
    assert set(statuses) <= {401, 429}
    if limited.status_code == 429:
        assert 1 <= int(limited["Retry-After"]) <= 60
        assert json.loads(limited.content) == {"error": "too many failed requests"}
    assert read(path, key).status_code == 200  # from the same address, with the same prefix


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever misses has had its share."""
    monkeypatch.setattr("api.throttling.FAILURES_PER_MINUTE_MAX", 0)
    read(BALANCE.format(VASILEK))


def test_all_misses_look_alike_over_the_limit_too(full: None) -> None:
    forbidden = paths_of(VASILEK)
    key = issue("shop", ROMASHKA)[1]

    for path in [*forbidden, BALANCE.format("7700000000"), OPERATION.format(uuid4())]:
        assert read(path, key).status_code == 429
        assert read(path, "wrong").status_code == read(path).status_code == 429


def test_neither_hits_nor_who_may_read_everything_are_limited(full: None) -> None:
    paths = paths_of(ROMASHKA)
    everything, own = issue("accounting", READ_ALL)[1], issue("shop", ROMASHKA)[1]

    assert {read(path, own).status_code for path in paths} == {200}
    assert read(BALANCE.format(VASILEK), everything).status_code == 404


# --- settings --------------------------------------------------------------------------------------------


def test_open_reading_in_production_is_warned_of() -> None:
    def warned() -> bool:
        return "api.W001" in [message.id for message in checks.run_checks(tags=["security"])]

    with override_settings(READ_AUTH="none", DEBUG=False):
        assert warned()
    with override_settings(READ_AUTH="key", DEBUG=False):
        assert not warned()
    with override_settings(READ_AUTH="none", DEBUG=True):
        assert not warned()


def test_read_auth_is_key_or_none() -> None:
    assert [read_auth("key"), read_auth("none")] == ["key", "none"]
    with pytest.raises(ValueError, match="yes"):
        read_auth("yes")
