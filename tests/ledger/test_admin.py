import re

import pytest
from django.db import connection
from django.db.models import Model
from django.test import Client
from django.test.utils import CaptureQueriesContext

from core.admin import BoundedPaginator
from ledger.models import BalanceLog, Organization, Payment
from ledger.money import format_rubles
from tests.admin_client import admin_url, changelist_rows, staff_client, superuser_client
from tests.factories import IVANOV, ROMASHKA, SAMPLE, VASILEK, make_organizations, post_payments, terms
from tests.markers import every_database, sqlite_run_only

pytestmark = [pytest.mark.django_db, sqlite_run_only]
MODELS = [Organization, Payment, BalanceLog]
models = pytest.mark.parametrize("model", MODELS)


@pytest.fixture
def admin_client() -> Client:
    return superuser_client()


@models
def test_superuser_cannot_change_the_ledger_by_any_url(admin_client: Client, model: type[Model]) -> None:
    post_payments(terms(100_00))
    before = [list(each.objects.values()) for each in MODELS]
    row = model.objects.get()
    forged = {"balance_kopecks": 5, "amount_kopecks": 5, "inn": VASILEK, "post": "yes"}

    for name, arguments in [("add", []), ("delete", [row.pk]), ("change", [row.pk])]:
        assert admin_client.post(admin_url(model, name, *arguments), forged).status_code == 403
    for name, arguments in [("add", []), ("delete", [row.pk])]:
        assert admin_client.get(admin_url(model, name, *arguments)).status_code == 403
    delete = {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"}
    admin_client.post(admin_url(model, "changelist"), delete | {"index": "0"})
    admin_client.post(admin_url(model, "changelist"), delete)

    assert [list(each.objects.values()) for each in MODELS] == before


@models
def test_pages_offer_no_change(admin_client: Client, model: type[Model]) -> None:
    post_payments(terms())

    for name, arguments in [("changelist", []), ("change", [model.objects.get().pk])]:
        content = admin_client.get(admin_url(model, name, *arguments)).content.decode()
        assert not re.search("delete_selected|deletelink|addlink|_save|<textarea", content)


@models
def test_staff_with_view_permission_reads_only(model: type[Model]) -> None:
    post_payments(terms())
    auditor = staff_client(f"view_{model._meta.model_name}")

    assert len(changelist_rows(auditor, model)) == 1
    assert auditor.get(admin_url(model, "change", model.objects.get().pk)).status_code == 200
    assert auditor.post(admin_url(model, "change", model.objects.get().pk), {}).status_code == 403


@models
def test_staff_without_view_permission_is_forbidden(model: type[Model]) -> None:
    post_payments(terms())
    clerk = staff_client()

    assert clerk.get(admin_url(model, "changelist")).status_code == 403
    assert clerk.get(admin_url(model, "change", model.objects.get().pk)).status_code == 403


@pytest.mark.parametrize(
    ("kopecks", "text"),
    [(145_000_00, "145 000,00 ₽"), (1, "0,01 ₽"), (1_234_567_89, "1 234 567,89 ₽"), (-5_50, "−5,50 ₽")],
)
def test_amounts_are_formatted_as_rubles_with_no_break_spaces(kopecks: int, text: str) -> None:
    assert format_rubles(kopecks) == text.replace(" ", "\N{NO-BREAK SPACE}")


def test_organization_page_shows_balance_and_inn_checksum(admin_client: Client) -> None:
    post_payments(terms(145_000_00), terms(1, inn=SAMPLE))

    for inn, balance, icon in [(ROMASHKA, 145_000_00, "icon-yes"), (SAMPLE, 1, "icon-no")]:
        content = admin_client.get(
            admin_url(Organization, "change", Organization.objects.get(inn=inn).pk)
        ).content.decode()
        assert format_rubles(balance) in content
        assert icon in content
        assert f"{admin_url(BalanceLog, 'changelist')}?q={inn}" in content


def test_document_number_is_escaped(admin_client: Client) -> None:
    post_payments(terms(document_number="<script>alert(1)</script>"))

    for url in [admin_url(Payment, "changelist"), admin_url(Payment, "change", Payment.objects.get().pk)]:
        content = admin_client.get(url).content.decode()
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in content
        assert "<script>alert" not in content


@every_database
def test_list_shows_newest_rows_first(admin_client: Client) -> None:
    first, second = terms(), terms()
    post_payments(first)
    post_payments(second)

    assert changelist_rows(admin_client, Payment) == [str(second.operation_id), str(first.operation_id)]


@every_database
def test_search_finds_organization_by_exact_inn(admin_client: Client) -> None:
    make_organizations(ROMASHKA, VASILEK)

    assert changelist_rows(admin_client, Organization, q=f" {ROMASHKA} ") == [ROMASHKA]
    assert changelist_rows(admin_client, Organization, q=ROMASHKA[:9]) == []


@every_database
@pytest.mark.parametrize("spelling", ["{}", "{{{}}}", "urn:uuid:{}"])
@pytest.mark.parametrize("model", [Payment, BalanceLog])
def test_search_finds_operation_id_in_any_spelling(
    admin_client: Client, model: type[Model], spelling: str
) -> None:
    payment_terms = terms()
    post_payments(payment_terms, terms())

    assert (
        len(changelist_rows(admin_client, model, q=spelling.format(str(payment_terms.operation_id).upper())))
        == 1
    )
    assert len(changelist_rows(admin_client, model, q=payment_terms.operation_id.hex)) == 1


@every_database
@pytest.mark.parametrize("model", [Payment, BalanceLog])
def test_search_finds_payments_and_entries_by_inn(admin_client: Client, model: type[Model]) -> None:
    post_payments(terms(), terms(), terms(inn=IVANOV))

    assert len(changelist_rows(admin_client, model, q=ROMASHKA)) == 2
    assert changelist_rows(admin_client, model, q="<nonsense' --") == []


@every_database
def test_search_of_a_log_uses_the_order_of_its_unique_key(admin_client: Client) -> None:
    post_payments(terms(), terms(inn=VASILEK), terms(), terms())

    with CaptureQueriesContext(connection) as statements:
        response = admin_client.get(admin_url(BalanceLog, "changelist"), {"q": ROMASHKA})

    assert [entry.seq for entry in response.context["cl"].result_list] == [3, 2, 1]
    orders = [each["sql"].partition("ORDER BY ")[2] for each in statements if "ORDER BY" in each["sql"]]
    assert orders
    assert all(re.match(r"\W*ledger_balancelog\W+seq\W+DESC", order) for order in orders)


@models
def test_list_takes_constant_number_of_statements(admin_client: Client, model: type[Model]) -> None:
    post_payments(terms())
    with CaptureQueriesContext(
        connection,
    ) as short:
        changelist_rows(admin_client, model)
    post_payments(*(terms(inn=f"{number:010}") for number in range(50)))
    with CaptureQueriesContext(connection) as long:
        changelist_rows(admin_client, model)

    assert len(long) == len(short) <= 7


@models
def test_list_joins_no_other_table(admin_client: Client, model: type[Model]) -> None:
    """MariaDB would start with the few organizations, read all their payments, and sort a million rows."""
    post_payments(terms())
    with CaptureQueriesContext(connection) as statements:
        changelist_rows(admin_client, model)

    assert not [each["sql"] for each in statements if "JOIN" in each["sql"]]


@every_database
@models
@pytest.mark.parametrize("query", ["", ROMASHKA])
def test_list_count_is_bounded(admin_client: Client, model: type[Model], query: str) -> None:
    post_payments(terms())
    with CaptureQueriesContext(connection) as statements:
        changelist_rows(admin_client, model, q=query)

    counts = [each["sql"] for each in statements if "COUNT(" in each["sql"]]
    assert len(counts) == 1
    assert re.search(rf"COUNT\(\*\) FROM \(SELECT .* LIMIT {BoundedPaginator.rows_max}\)", counts[0])


def test_list_cannot_be_sorted_by_unindexed_column(admin_client: Client) -> None:
    post_payments(terms(document_number="2"), terms(document_number="1"))

    with CaptureQueriesContext(connection) as statements:
        admin_client.get(admin_url(Payment, "changelist"), {"o": "4"})

    orders = [each["sql"] for each in statements if "ORDER BY" in each["sql"]]
    assert orders
    assert not [sql for sql in orders if re.search(r"ORDER BY (?!\W*ledger_payment\W+id\W+DESC)", sql)]


@every_database
def test_truncated_list_says_so(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedPaginator, "rows_max", 3)
    post_payments(terms(), terms(), terms())
    post_payments(terms())

    content = admin_client.get(admin_url(Payment, "changelist")).content.decode()

    assert "Only the first 3 are listed; search for the others." in content
