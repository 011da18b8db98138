"""The admin page of an organization."""

import re
from itertools import chain
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from ledger.models import Organization
from ledger.money import format_rubles
from ledger.statement import PAGE_ENTRIES
from tests.admin_client import admin_url, staff_client, superuser_client
from tests.factories import IVANOV, VASILEK, make_organizations
from tests.ledger.test_queries import make_log, total
from tests.ledger.test_statement import in_moscow
from tests.markers import every_database, sqlite_run_only

pytestmark = [pytest.mark.django_db, sqlite_run_only]


def shown(client: Client, organization: Organization, **query: str) -> Any:
    response = client.get(admin_url(Organization, "change", organization.pk), query)
    assert response.status_code == 200
    return response


@every_database
def test_page_shows_totals_and_entries_of_the_period() -> None:
    organization = make_log(60)

    response = shown(in_moscow(superuser_client()), organization, first="2024-04-29", last="2024-04-29")

    content = response.content.decode()
    for kopecks in (total(23), total(47) - total(23), total(47), total(60)):
        assert format_rubles(kopecks) in content
    assert [row["entry"].seq for row in response.context["entries"]] == list(range(47, 23, -1))
    assert "2024-04-29 00:00:00" in content


@every_database
def test_log_is_paged_by_seq_in_both_directions() -> None:
    organization = make_log(PAGE_ENTRIES * 2 + 5)
    client, pages, query = superuser_client(), [], ""

    while query is not None:
        response = client.get(f"{admin_url(Organization, 'change', organization.pk)}?{query}")
        pages.append([row["entry"].seq for row in response.context["entries"]])
        query = response.context["older"]

    assert [len(seqs) for seqs in pages] == [PAGE_ENTRIES, PAGE_ENTRIES, 5]
    assert list(chain(*pages)) == list(range(organization.last_seq, 0, -1))
    newer = client.get(f"{admin_url(Organization, 'change', organization.pk)}?{response.context['newer']}")
    assert [row["entry"].seq for row in newer.context["entries"]] == pages[1]
    assert shown(client, organization).context["newer"] is None


def test_paging_keeps_the_period() -> None:
    organization = make_log(100)

    response = shown(superuser_client(), organization, first="2024-04-28", last="2024-04-30")

    assert response.context["older"].startswith("first=2024-04-28&last=2024-04-30&before=")


@every_database
@pytest.mark.parametrize("before", ["0", "-1", "x", "9" * 30, str(2**63 - 1), "1"])
def test_invalid_cursor_is_harmless(before: str) -> None:
    shown(superuser_client(), make_log(3), before=before)


def test_page_and_download_require_their_permissions() -> None:
    organization = make_log(3)
    file = f"/admin/ledger/organization/{organization.pk}/statement.csv"
    both = staff_client("view_organization", "view_balancelog", name="both")
    only_organization = staff_client("view_organization", name="only_organization")
    only_log = staff_client("view_balancelog", name="only_log")

    assert both.get(file).status_code == 200
    assert only_organization.get(file).status_code == only_log.get(file).status_code == 403
    assert Client().get(file).status_code == 302
    assert only_log.get(admin_url(Organization, "change", organization.pk)).status_code == 403
    content = shown(only_organization, organization).content.decode()
    assert format_rubles(organization.balance_kopecks) in content
    assert not re.search("<svg class|statement.csv|/ledger/payment/|Turnover", content)
    assert "/ledger/payment/" not in shown(both, organization).content.decode()


def test_unknown_organization_has_no_statement() -> None:
    assert superuser_client().get("/admin/ledger/organization/9/statement.csv").status_code == 404
    assert superuser_client(name="eva").get(admin_url(Organization, "change", 9)).status_code == 302


def test_organization_without_payments_has_a_page() -> None:
    make_organizations(IVANOV)

    assert "Nothing was posted" in shown(superuser_client(), Organization.objects.get()).content.decode()


def test_page_complies_with_the_content_security_policy() -> None:
    content = shown(superuser_client(), make_log(3)).content.decode()

    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=", content)


@every_database
def test_page_of_a_million_entries_takes_few_more_queries_than_of_ten() -> None:
    client, short, long = superuser_client(), make_log(10), make_log(10, inn=VASILEK)
    Organization.objects.filter(pk=long.pk).update(last_seq=1_000_000)

    def queries_for(organization: Organization) -> list[str]:
        with CaptureQueriesContext(connection) as captured:
            shown(client, organization, first="2024-04-28", last="2024-04-28")
        return [query["sql"] for query in captured]

    few, many = queries_for(short), queries_for(long)
    search_queries = 2 * 3  # three steps more for each end of the period
    assert len(many) - len(few) <= search_queries
    assert len(many) <= 30
    of_reversals = "reverses_id"
    assert not [sql for sql in many if re.search(r"OFFSET|COUNT\(|SUM\(", sql) and of_reversals not in sql]
