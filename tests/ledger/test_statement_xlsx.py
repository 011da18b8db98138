"""The .xlsx statement, as a spreadsheet reads it."""

import tempfile
import tracemalloc
from dataclasses import replace
from datetime import UTC, date, datetime, time
from io import BytesIO
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from openpyxl import load_workbook
from openpyxl.cell import Cell

from ledger import statement_xlsx
from ledger.admin import organization_page
from ledger.models import Organization
from ledger.money import BALANCE_KOPECKS_MAX
from ledger.statement import Statement
from tests.admin_client import staff_client, superuser_client
from tests.factories import ROMASHKA, VASILEK, post_payments, terms
from tests.ledger.test_queries import make_log
from tests.ledger.test_statement import in_moscow, statement_of, total
from tests.markers import sqlite_run_only

pytestmark = [pytest.mark.django_db, sqlite_run_only]
# Texts that Excel with Russian settings would convert, or run as a formula.
NUMBERS = [
    *(
        "000123",
        "1-2",
        "3/4",
        "12.05",
        "1E5",
        "40702810900000000001",
        "2024-04",
        "мар.24",
        "12:30",
        "1,5",
        "TRUE",
    ),
    *(
        "ИСТИНА",
        "50%",
        "1 000",
        "(5)",
        "№ 7",
        "1/2",
        "0x1F",
        "1e5",
        "₽5",
        "29.02",
        "http://x.example/1",
    ),
    *(
        "=1+1",
        "-5",
        "+7",
        "@SUM(A1)",
        "=cmd|' /C calc'!A0",
        "＝1",
        "{=1}",
        "1,=cmd|' /C calc'!A0",
        "'1",
        '"1"',
    ),
]


MIDNIGHT = datetime.combine(date(2024, 4, 28), time())  # cells of a workbook have no time zone


def path(organization: Organization) -> str:
    return f"/admin/ledger/organization/{organization.pk}/statement.xlsx"


def read(client: Client, organization: Organization, **query: str) -> list[tuple[Cell, ...]]:
    response: Any = client.get(path(organization), query)
    assert response["Content-Type"] == statement_xlsx.CONTENT_TYPE
    return list(load_workbook(BytesIO(b"".join(response.streaming_content))).active.iter_rows())


def entry_rows(rows: list[tuple[Cell, ...]]) -> list[tuple[Cell, ...]]:
    return rows[5:-2]


def test_document_numbers_are_unchanged_text() -> None:
    post_payments(*(terms(document_number=number) for number in NUMBERS))

    cells = [row[3] for row in entry_rows(read(superuser_client(), Organization.objects.get()))]

    assert [cell.value for cell in cells] == NUMBERS
    assert {(cell.data_type, cell.number_format) for cell in cells} == {("s", "@")}


def test_cells_are_typed() -> None:
    post_payments(terms(145_000_50))
    organization = Organization.objects.get()
    entry = organization.log.get()
    posted_at = entry.created_at.astimezone(statement_of(organization).period.zone).replace(microsecond=0)

    rows = read(in_moscow(superuser_client()), organization)

    assert ROMASHKA in rows[0][0].value
    assert rows[1][0].value == "Times in Europe/Moscow"
    assert (rows[2][1].value, rows[2][1].number_format) == (MIDNIGHT, "dd.mm.yyyy")
    assert [cell.value for cell in rows[4]][3:6] == ["Opening balance", None, 0]
    assert [cell.value for cell in rows[5]] == [
        *(1, datetime.combine(posted_at, time()), posted_at.time(), "PAY-328", MIDNIGHT),
        *(145_000.50, 145_000.50, str(entry.payment.operation_id), None),
    ]
    assert [row[3].value for row in rows[-2:]] == ["Turnover", "Closing balance"]
    assert [row[5].value for row in rows[-2:]] == [145_000.50, 145_000.50]
    assert rows[5][5].number_format == "#,##0.00"


@pytest.mark.parametrize(
    ("kopecks", "cell"),
    [
        (1, 0.01),
        (9_999_999_999_999_99, 9_999_999_999_999.99),  # 15 digits, the precision of the format
        (10_000_000_000_000_00, "10000000000000,00"),
        (BALANCE_KOPECKS_MAX, "92233720368547758,07"),
    ],
)
def test_amounts_are_exact(kopecks: int, cell: object) -> None:
    content = b"".join(statement_xlsx.xlsx_chunks(replace(statement_of(make_log(0)), closing=kopecks)))

    assert [*load_workbook(BytesIO(content)).active.iter_rows()][-1][5].value == cell


def test_date_before_1900_is_text() -> None:
    post_payments(terms(document_date=datetime(1850, 1, 2, tzinfo=UTC)))

    assert entry_rows(read(superuser_client(), Organization.objects.get()))[0][4].value == "02.01.1850"


def test_document_number_stays_in_one_row_and_is_valid_xml() -> None:
    post_payments(terms(document_number=" 1\r\n2\u2028<&>\x1b\x084\ufeff\uffff "))

    assert entry_rows(read(superuser_client(), Organization.objects.get()))[0][3].value == " 1  2 <&>  4   "


@pytest.mark.parametrize(
    ("number", "written_as"),
    [
        ("<r><t>1</t></r>", "<r><t>1</t></r> "),  # XlsxWriter's own markup
        ("<r></c></r>", "<r></c></r> "),
        ("_x0041_", "_x005F_x0041_"),  # escaped, since it would be read as the letter A
    ],
)
def test_document_number_is_never_markup(number: str, written_as: str) -> None:
    post_payments(terms(document_number=number))

    assert entry_rows(read(superuser_client(), Organization.objects.get()))[0][3].value == written_as


def test_workbook_covers_its_period_and_is_named_after_it() -> None:
    organization = make_log(60)
    client = in_moscow(superuser_client())

    response = client.get(path(organization), {"first": "2024-04-28", "last": "2024-04-28"})
    rows = read(client, organization, first="2024-04-28", last="2024-04-28")

    name = f"statement_{ROMASHKA}_2024-04-28_2024-04-28.xlsx"
    assert response["Content-Disposition"] == f'attachment; filename="{name}"'
    assert [row[0].value for row in entry_rows(rows)] == list(range(1, 24))
    assert {row[1].value.date() for row in entry_rows(rows)} == {date(2024, 4, 28)}


def test_workbook_takes_bounded_memory_and_leaves_no_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    statement = statement_of(make_log(10))
    few = list(statement.entries())
    peaks = []
    for count in (100, 1_000):
        monkeypatch.setattr(Statement, "entries", lambda _, count=count: islice(cycle(few), count))
        tracemalloc.start()
        assert sum(map(len, statement_xlsx.xlsx_chunks(statement))) > count * 10
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    assert peaks[1] < 1.5 * peaks[0]
    assert not list(tmp_path.iterdir())


def test_aborted_workbook_leaves_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    chunks = statement_xlsx.xlsx_chunks(statement_of(make_log(10)))
    next(chunks)
    assert list(tmp_path.iterdir())

    chunks.close()

    assert not list(tmp_path.iterdir())


def test_workbook_with_too_many_entries_is_refused_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statement_xlsx, "ENTRIES_MAX", 2)
    organization, client = make_log(3), superuser_client()

    refused = client.get(path(organization), follow=True)

    assert "An Excel file holds up to 2 entries" in refused.content.decode()
    assert client.get(path(organization), {"last": "2024-04-27"}).status_code == 200


def test_long_workbook_and_long_csv_share_the_download_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(organization_page, "CHUNK_ENTRIES", 2)
    post_payments(*(terms(1_00) for _ in range(3)), terms(1_00, inn=VASILEK))
    long, client = Organization.objects.get(inn=ROMASHKA), superuser_client()

    first: Any = client.get(path(long).replace("xlsx", "csv"))
    second = client.get(path(long), follow=True)

    assert "Another long statement is being downloaded" in second.content.decode()
    assert b"".join(first.streaming_content)
    assert len(entry_rows(read(client, long))) == 3


def test_workbook_requires_permission_for_the_log() -> None:
    organization = make_log(3)

    assert staff_client("view_organization", name="a").get(path(organization)).status_code == 403
    assert (
        staff_client("view_organization", "view_balancelog", name="b").get(path(organization)).status_code
        == 200
    )
    assert Client().get(path(organization)).status_code == 302


def test_closing_balance_is_the_sum_of_the_amounts() -> None:
    rows = read(superuser_client(), make_log(30))

    assert sum(row[5].value for row in entry_rows(rows)) * 100 == total(30)
    assert rows[-1][5].value * 100 == total(30)
