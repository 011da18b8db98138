import json
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.test import Client

from ledger.models import Organization
from ledger.money import BALANCE_KOPECKS_MAX
from tests.factories import ROMASHKA, SAMPLE, VASILEK, make_organizations, post_payments, terms
from tests.markers import sqlite_run_only
from tests.query_plans import assert_index_lookups_only, requires_mysql_explain
from tests.row_counts import count_rows_read

pytestmark = pytest.mark.django_db


def get(client: Client, path: str, expected_status: int = 200) -> Any:
    """Return the response's JSON, with decimal numbers as Decimal."""
    response = client.get(path)
    assert (response.status_code, response["Content-Type"]) == (expected_status, "application/json")
    return json.loads(response.content, parse_float=Decimal)


def balance_path(inn: str) -> str:
    return f"/api/organizations/{inn}/balance/"


def history_path(inn: str, query: str = "") -> str:
    return f"/api/organizations/{inn}/balance/history/{query}"


def test_balance_of_the_sample(client: Client) -> None:
    post_payments(terms(145_000_00, inn=SAMPLE))

    assert client.get(balance_path(SAMPLE)).content == b'{"inn":"1234567890","balance":145000}'


@pytest.mark.parametrize(
    "path",
    [
        "/api/organizations/1234567890/balance/",
        "/api/organizations/1234567890/balance/history/",
        "/api/operations/ccf0a86d-041b-4991-bcf7-e2352f7b8a4a/",
    ],
)
def test_read_api_reads_from_the_database_for_reads(client: Client, settings: Any, path: str) -> None:
    settings.READ_DATABASE = "absent"

    assert client.get(path).status_code == 503


def test_balance_with_kopecks_has_two_decimals(client: Client) -> None:
    post_payments(terms(10_50))

    assert client.get(balance_path(ROMASHKA)).content == b'{"inn":"7707083893","balance":10.50}'


def test_largest_balance_is_exact(client: Client) -> None:
    make_organizations(ROMASHKA)
    Organization.objects.update(balance_kopecks=BALANCE_KOPECKS_MAX)

    assert get(client, balance_path(ROMASHKA))["balance"] == Decimal("92233720368547758.07")


@pytest.mark.parametrize("inn", [VASILEK, "1", "x", "77070838930", "%00", "７７０７０８３８９３"])
@pytest.mark.parametrize("path", [balance_path, history_path])
def test_unknown_organization_is_not_found(client: Client, path: Any, inn: str) -> None:
    post_payments(terms())

    assert get(client, path(inn), 404) == {"error": "Organization not found"}


def test_history_returns_entries_newest_first(client: Client) -> None:
    first, second = terms(145_000_00, inn=SAMPLE), terms(100_00, inn=SAMPLE, document_number="PAY-329")
    post_payments(first)
    post_payments(second)

    response = get(client, history_path(SAMPLE))

    assert response["inn"] == SAMPLE
    newest, oldest = response["history"]
    assert newest.pop("created_at") >= oldest.pop("created_at")
    assert newest == {
        "amount": 100,
        "balance_after": 145_100,
        "seq": 2,
        "operation_id": str(second.operation_id),
        "document_number": "PAY-329",
        "document_date": "2024-04-27T21:00:00Z",
    }
    assert (oldest["balance_after"], oldest["operation_id"]) == (145_000, str(first.operation_id))


def test_history_limit_defaults_to_ten_and_is_at_most_a_hundred(client: Client) -> None:
    post_payments(*(terms() for _ in range(120)))

    def seqs(query: str) -> list[int]:
        return [entry["seq"] for entry in get(client, history_path(ROMASHKA, query))["history"]]

    assert seqs("") == list(range(120, 110, -1))
    assert seqs("?limit=3") == [120, 119, 118]
    assert (
        seqs("?limit=100")
        == seqs("?limit=101")
        == seqs(f"?limit={10**18}")
        == seqs("?limit=" + "9" * 5000)
        == list(range(120, 20, -1))
    )
    assert seqs("?limit=3&before=118") == [117, 116, 115]
    assert seqs("?before=1") == []
    assert seqs("?limit=007&before=9999999999999999999") == list(range(120, 113, -1))


@sqlite_run_only
@pytest.mark.parametrize("value", ["0", "-1", "+1", "1.0", "ten", "", "%D9%A3", "1e2"])
@pytest.mark.parametrize("name", ["limit", "before", "after"])
def test_history_refuses_non_positive_numbers(client: Client, name: str, value: str) -> None:
    post_payments(terms())

    response = get(client, history_path(ROMASHKA, f"?{name}={value}"), 400)
    assert response == {"error": f"{name}: must be a positive whole number"}


def test_organization_without_payments_has_an_empty_history(client: Client) -> None:
    make_organizations(ROMASHKA)

    assert get(client, balance_path(ROMASHKA))["balance"] == 0
    assert get(client, history_path(ROMASHKA))["history"] == []


@pytest.mark.parametrize(
    "path", [balance_path(ROMASHKA), history_path(ROMASHKA), f"/api/operations/{UUID(int=7)}/"]
)
def test_read_api_allows_only_get_and_head(client: Client, path: str) -> None:
    response = client.post(path)

    assert (response.status_code, response["Allow"]) == (405, "GET, HEAD")
    assert json.loads(response.content) == {"error": "use GET or HEAD"}


def test_unknown_api_path_is_not_found_in_json(client: Client) -> None:
    assert get(client, "/api/nothing/here", 404) == {"error": "Not found"}


@requires_mysql_explain
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "path", [balance_path(ROMASHKA), history_path(ROMASHKA), history_path(ROMASHKA, "?before=40&limit=100")]
)
def test_each_read_takes_index_lookups_only(client: Client, path: str) -> None:
    for _ in range(4):
        post_payments(*(terms(inn=inn) for inn in (ROMASHKA, VASILEK, SAMPLE) for _ in range(200)))

    assert_index_lookups_only(lambda: client.get(path))


@requires_mysql_explain
@pytest.mark.django_db(transaction=True)
def test_history_page_reads_few_rows_at_any_depth(client: Client) -> None:
    """Count rows, since MariaDB once read a whole log for a page although EXPLAIN showed an index lookup."""
    for _ in range(4):
        post_payments(*(terms() for _ in range(500)))

    for query in ("", "?before=1900", "?before=1000", "?before=20"):
        assert count_rows_read(lambda query=query: client.get(history_path(ROMASHKA, query))) <= 50  # type: ignore[misc]
