"""POST /api/bank-statements/: each answer of the specification's table, and who may upload."""

import json
from datetime import date
from io import BytesIO
from typing import Any

import pytest
from django.test import Client, override_settings

from api import throttling
from api.keys import issue
from api.models import READ_ALL, WRITE_STATEMENTS
from statements.models import BankStatement, OwnAccount, RejectedStatement, StatementLine
from statements.reading import BODY_BYTES_MAX
from tests.screenshots.sample_statement import ACCOUNT, Movement, statement

pytestmark = pytest.mark.django_db
PATH = "/api/bank-statements/"
DAY = date(2026, 3, 16)
WHOLE = statement(DAY, DAY, 0, [Movement("ООО «Ромашка»", "7707083893", "7", 10_00)])


@pytest.fixture
def key() -> str:
    OwnAccount.objects.create(number=ACCOUNT, since=date(2026, 1, 1))
    return issue("bank client", WRITE_STATEMENTS)[1]


def upload(body: bytes, key: str = "", **extra: Any) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    response = Client().generic("POST", PATH, body, "application/octet-stream", headers=headers, **extra)
    return response.status_code, json.loads(response.content)


def test_new_file_is_created_and_matched_and_the_same_bytes_change_nothing(key: str) -> None:
    status, answer = upload(WHOLE, key, QUERY_STRING="name=kl_to_1c.txt")

    stored = BankStatement.objects.get()
    balances = {"opening": 0, "in": 10_00, "out": 0, "closing": 10_00, "proof": "holds"}
    counts = {"lines": 1, "new_lines": 1, "known_lines": 0, "withdrawn_lines": 0}
    assert (status, answer) == (
        201,
        {"id": stored.pk, "verdict": "ok", "warnings": [], "accounts": [{"account": ACCOUNT} | balances]}
        | counts,
    )
    assert stored.name == "kl_to_1c.txt"
    assert StatementLine.objects.get().bucket == "missing_webhook"
    assert upload(WHOLE, key) == (200, answer | {"new_lines": 0, "known_lines": 1})


def test_unproven_file_is_created_with_its_verdict(key: str) -> None:
    status, answer = upload(WHOLE.replace(b"=0.00", b"=1.00", 1), key)

    assert (status, answer["verdict"], answer["accounts"][0]["proof"]) == (201, "unproven", "fails")


def test_refused_file_is_answered_with_line_and_reason_and_kept(key: str) -> None:
    assert upload(b"GIF89a", key)[1]["line"] == 1
    other = WHOLE.replace(ACCOUNT.encode(), b"40702810900000009999")
    assert upload(other, key) == (400, {"error": "account 40702810900000009999 is not one of ours"})
    assert RejectedStatement.objects.count() == 2
    assert not BankStatement.objects.exists()


def test_file_that_names_no_account_is_refused(key: str) -> None:
    empty = "1CClientBankExchange\r\nВерсияФормата=1.03\r\nКодировка=Windows\r\nКонецФайла\r\n"

    assert upload(empty.encode("cp1251"), key) == (400, {"error": "the file names no account"})


def test_truncated_file_is_not_judged(key: str) -> None:
    answer = upload(WHOLE, key, **{"wsgi.input": BytesIO(WHOLE[:60])})

    assert answer == (503, {"error": "body: arrived incomplete, please send it again"})
    assert not RejectedStatement.objects.exists()
    assert not BankStatement.objects.exists()


def test_only_a_key_of_the_scope_may_upload(key: str) -> None:
    reader = issue("reader", READ_ALL)[1]
    with override_settings(READ_AUTH="none"):
        assert upload(WHOLE)[0] == 401
    assert upload(WHOLE, "nonsense")[0] == 401
    assert upload(WHOLE, reader) == (403, {"error": "this key lacks the scope write:bank-statements"})
    assert not BankStatement.objects.exists()


def test_key_for_uploads_reads_no_organization(key: str) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    assert Client().get("/api/organizations/7707083893/balance/", headers=headers).status_code == 404


def test_failed_uploads_are_throttled(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttling, "FAILURES_PER_MINUTE_MAX", 1)
    reader = issue("reader", READ_ALL)[1]
    upload(WHOLE, reader)

    assert upload(WHOLE, reader)[0] == 429
    assert upload(WHOLE, key)[0] == 201


def test_long_and_chunked_bodies_are_refused_unread(key: str) -> None:
    assert upload(b"", key, CONTENT_LENGTH=str(BODY_BYTES_MAX + 1))[0] == 413
    assert upload(b"", key, CONTENT_LENGTH="9" * 5000)[0] == 413
    assert upload(b"", key, CONTENT_LENGTH="")[0] == 411
    assert upload(WHOLE, key, CONTENT_LENGTH=str(len(WHOLE) + 1))[0] == 503
