import hmac
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest
from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from api import keys
from api.keys import SCOPES_MAX, authenticate, issue, normalize_scopes, record_use, revoke
from api.models import READ_ALL, ApiKey
from ledger.inn import is_inn
from tests.concurrency import run_concurrently
from tests.factories import IVANOV, ROMASHKA, VASILEK
from tests.row_counts import read_only_session

pytestmark = pytest.mark.django_db


def test_key_has_256_random_bits_and_only_its_hash_is_stored() -> None:
    row, key = issue("accounting", READ_ALL)

    word, prefix, secret = key.split("_", 2)
    assert (word, prefix, len(secret)) == ("prihod", row.prefix, 43)
    stored = [str(value) for value in ApiKey.objects.values_list().get()]
    assert not any(secret in value for value in stored)
    assert issue("accounting", READ_ALL)[1].split("_", 2)[2] != secret


def test_only_the_exact_key_authenticates() -> None:
    row, key = issue("accounting", READ_ALL)

    assert authenticate(key) == row
    other = "A" if key[-2] != "A" else "B"
    for invalid in ("", "x", key[:-1], key + "A", key.upper(), key[:-2] + other + key[-1], f" {key}", "é"):
        assert authenticate(invalid) is None


def test_expired_or_revoked_key_does_not_authenticate() -> None:
    row, key = issue("accounting", READ_ALL, timezone.now() + timedelta(hours=1))
    assert authenticate(key) == row

    ApiKey.objects.update(expires_at=timezone.now())
    assert authenticate(key) is None

    row, key = issue("accounting", READ_ALL)
    assert revoke(row.prefix)
    assert authenticate(key) is None
    assert not revoke(row.prefix)


def test_unknown_and_malformed_keys_are_compared_in_constant_time_too() -> None:
    _, key = issue("accounting", READ_ALL)
    with patch.object(keys, "compare_digest", wraps=hmac.compare_digest) as compared:
        authenticate(key)
        authenticate("prihod_0123456789ab_" + "A" * 43)
        authenticate("x")

    assert compared.call_count == 3


def test_scopes_are_read_all_or_organizations() -> None:
    assert normalize_scopes(f" {VASILEK},{ROMASHKA}\r\n{VASILEK} ") == f"{ROMASHKA} {VASILEK}"
    assert normalize_scopes(f"write:bank-statements {ROMASHKA}") == f"{ROMASHKA} write:bank-statements"
    for invalid in ("", " ", "everything", f"{READ_ALL} {ROMASHKA}", "123", "１" * 10):
        with pytest.raises(ValidationError):
            normalize_scopes(invalid)
    with pytest.raises(ValidationError):
        normalize_scopes(" ".join(f"{number:010}" for number in range(SCOPES_MAX + 1)))

    row, _ = issue("shop", f"{ROMASHKA} {IVANOV}")
    assert [row.may_read(inn) for inn in (ROMASHKA, IVANOV, VASILEK, "", "7707")] == [
        True,
        True,
        *[False] * 3,
    ]


@pytest.mark.parametrize("text", [ROMASHKA, IVANOV, "1" * 9, "1" * 11, "1" * 13, "x" * 10, "１" * 10])
def test_organization_in_scopes_must_have_the_format_of_an_inn(text: str) -> None:
    assert bool(keys._ORGANIZATION.fullmatch(text)) == is_inn(text)


# --- when it was last used -------------------------------------------------------------------------------


def last_used(row: ApiKey) -> Any:
    return ApiKey.objects.get(pk=row.pk).last_used_at


def test_key_use_is_recorded_at_most_once_a_minute() -> None:
    row, _ = issue("accounting", READ_ALL)
    record_use(row)
    first = last_used(row)
    assert timezone.now() - first < timedelta(minutes=1)

    with CaptureQueriesContext(connection) as queries:
        record_use(ApiKey.objects.get())
    assert [query["sql"][:6] for query in queries] == ["SELECT"]  # of this test
    record_use(row)  # a stale row, as in another process
    assert last_used(row) == first

    ApiKey.objects.update(last_used_at=first - timedelta(seconds=61))
    record_use(ApiKey.objects.get())
    assert last_used(row) >= first


@pytest.mark.django_db(transaction=True)
def test_key_use_that_cannot_be_recorded_is_ignored() -> None:
    row, _ = issue("accounting", READ_ALL)
    with read_only_session():
        record_use(row)
    assert last_used(row) is None


@pytest.mark.django_db(transaction=True)
def test_recording_key_use_skips_a_locked_row() -> None:
    """The lock is on the row, on SQLite on the whole database. Waiting for it would be a deadlock here."""
    row, _ = issue("accounting", READ_ALL)
    with transaction.atomic():
        ApiKey.objects.update(name="locked")
        run_concurrently([lambda: record_use(row)])
    assert last_used(row) is None

    record_use(row)
    assert last_used(row) is not None
