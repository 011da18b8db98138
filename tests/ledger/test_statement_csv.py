"""The CSV statement, and its download."""

import csv
import io
from datetime import datetime
from typing import Any

import pytest
from django.test import Client

from ledger import statement_csv
from ledger.admin import organization_page
from ledger.download_slot import DownloadBusy, ExclusiveDownload
from ledger.models import Organization
from ledger.statement import CHUNK_ENTRIES
from tests.admin_client import superuser_client
from tests.factories import ROMASHKA, VASILEK, post_payments, terms
from tests.ledger.test_queries import make_log, total
from tests.ledger.test_statement import MOSCOW, in_moscow, statement_of
from tests.markers import every_database, sqlite_run_only

pytestmark = [pytest.mark.django_db, sqlite_run_only]
ENCODINGS = {"utf-8": "utf-8-sig", "windows-1251": "cp1251"}


def downloaded(client: Client, organization: Organization, **query: str) -> tuple[Any, bytes]:
    response = client.get(f"/admin/ledger/organization/{organization.pk}/statement.csv", query)
    assert response.status_code == 200
    return response, b"".join(response.streaming_content)


def parsed(content: bytes, codec: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode(codec), newline=""), delimiter=";", strict=True))


@every_database
@pytest.mark.parametrize(("encoding", "codec"), ENCODINGS.items())
def test_csv_format_is_read_by_excel_and_1c(encoding: str, codec: str) -> None:
    post_payments(terms(145_000_00, document_number="Счёт №1; «срочно»"), terms(50, document_number='a"b'))
    organization = Organization.objects.get()

    response, content = downloaded(in_moscow(superuser_client()), organization, encoding=encoding)

    assert response["Content-Type"] == f"text/csv; charset={encoding}"
    today = f"{datetime.now(MOSCOW):%Y-%m-%d}"
    name = f"statement_{ROMASHKA}_2024-04-28_{today}.csv"
    assert response["Content-Disposition"] == f'attachment; filename="{name}"'
    assert content.startswith(b"\xef\xbb\xbf") == (encoding == "utf-8")
    assert content.endswith(b"\r\n")
    assert content.count(b"\n") == content.count(b"\r\n")
    about, zone, period, head, opening, first, second, turnover, closing = parsed(content, codec)
    assert ROMASHKA in about[0]
    assert zone == ["Times in Europe/Moscow"]
    assert period[1] == "28.04.2024"
    assert opening == ["", "", "", "Opening balance", "", "0,00"]
    written_at = organization.log.get(seq=1).created_at.astimezone(MOSCOW)
    operation_id = str(organization.log.get(seq=1).payment.operation_id)
    assert first == [
        *("1", f"{written_at:%d.%m.%Y}", f"{written_at:%H:%M:%S}", "Счёт №1; «срочно»", "28.04.2024"),
        *("145000,00", "145000,00", operation_id, ""),
    ]
    assert second[3:7] == ['a"b', "28.04.2024", "0,50", "145000,50"]
    assert turnover[3:] == ["Turnover", "", "145000,50"]
    assert closing[3:] == ["Closing balance", "", "145000,50"]
    assert len(head) == len(first)


@pytest.mark.parametrize(
    "number",
    [
        "=1+1",
        "+7",
        "-5",
        "@SUM(A1)",
        "  =1",
        "\t=1",
        "\r\n=1",
        "＝1",
        "=cmd|' /C calc'!A0",
        "\u200b=1",
        "\u00a0-1",
    ],
)
@pytest.mark.parametrize(("encoding", "codec"), ENCODINGS.items())
def test_document_number_is_never_a_formula(number: str, encoding: str, codec: str) -> None:
    post_payments(terms(document_number=number))

    _, content = downloaded(superuser_client(), Organization.objects.get(), encoding=encoding)

    cells = [cell for row in parsed(content, codec) for cell in row]
    assert not [cell for cell in cells if cell.lstrip(" \t\r\n\u00a0\u200b?")[:1] in {*"=+-@＝＋－＠"} - {""}]
    assert [cell for cell in cells if cell.startswith("'")]


BEFORE_A_CELL = ["1,", "1;", "1:", "1|", '1,"', '1;"', "1, ", "1,\t", "1;\r\n", "1,\ufeff", "1;;", ",", '"";']


def test_document_number_after_a_separator_is_never_a_formula() -> None:
    signs = set("=+-@＝＋－＠﹦﹢﹣﹫")
    post_payments(
        *(
            terms(document_number=f"{before}{sign}cmd|' /C calc'!A0")
            for before in BEFORE_A_CELL
            for sign in signs
        )
    )

    _, content = downloaded(superuser_client(), Organization.objects.get())

    lines = content.decode("utf-8-sig").splitlines()
    assert len(lines) == 5 + len(BEFORE_A_CELL) * len(signs) + 2
    for separator in ",;:|\t":
        cells = [cell for line in lines for cell in line.split(separator)]
        assert not [cell for cell in cells if cell.strip('" ')[:1] in signs]


@pytest.mark.parametrize(
    "number", ["000123", "1-2", "3/4", "1E5", "1,5", "TRUE", "A=5", "№ 5 - доп", "2+2", "a@b"]
)
def test_harmless_document_number_is_unchanged(number: str) -> None:
    post_payments(terms(document_number=number))

    assert parsed(downloaded(superuser_client(), Organization.objects.get())[1], "utf-8-sig")[5][3] == number


def test_windows_1251_composes_letters_and_replaces_unknown_characters() -> None:
    post_payments(terms(document_number="и\u0306 漢 №5"))

    _, content = downloaded(superuser_client(), Organization.objects.get(), encoding="windows-1251")

    assert parsed(content, "cp1251")[5][3] == "й ? №5"


def test_document_number_stays_in_one_row() -> None:
    post_payments(terms(document_number="1\r\n2\u20283\x1b4"))

    assert (
        parsed(downloaded(superuser_client(), Organization.objects.get())[1], "utf-8-sig")[5][3] == "1  2 3 4"
    )


@every_database
def test_csv_is_chunked_and_its_totals_agree() -> None:
    organization = make_log(CHUNK_ENTRIES * 2 + 1)
    period_statement = statement_of(organization)

    chunks = list(statement_csv.csv_chunks(period_statement, "utf-8"))

    assert len(chunks) == 3
    rows = parsed(b"".join(chunks), "utf-8-sig")
    entries = rows[5:-2]
    assert [int(entry[0]) for entry in entries] == list(range(1, organization.last_seq + 1))
    opening, turnover, closing = (int(rows[n][5].replace(",", "")) for n in (4, -2, -1))
    assert opening + turnover == closing == total(organization.last_seq)
    assert turnover == sum(int(entry[5].replace(",", "")) for entry in entries)


def test_long_downloads_are_exclusive_and_short_ones_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(organization_page, "CHUNK_ENTRIES", 2)
    post_payments(*(terms(1_00) for _ in range(3)), terms(1_00, inn=VASILEK))
    long, short = (Organization.objects.get(inn=inn) for inn in (ROMASHKA, VASILEK))
    client = superuser_client()

    first = client.get(f"/admin/ledger/organization/{long.pk}/statement.csv")
    second = client.get(f"/admin/ledger/organization/{long.pk}/statement.csv", follow=True)

    assert first.status_code == 200
    assert "Another long statement is being downloaded" in second.content.decode()
    assert downloaded(client, short)[0].status_code == 200
    assert b"".join(first.streaming_content)
    assert downloaded(client, long)[0].status_code == 200


def test_closed_or_unused_download_releases_the_slot() -> None:
    given_up = ExclusiveDownload(iter([b"1", b"2"]))
    assert next(given_up) == b"1"
    with pytest.raises(DownloadBusy):
        ExclusiveDownload(iter([]))
    given_up.close()
    ExclusiveDownload(iter([]))  # never closed
    ExclusiveDownload(iter([])).close()


@every_database
def test_csv_covers_the_period_in_the_viewers_zone() -> None:
    organization = make_log(60)

    _, content = downloaded(
        in_moscow(superuser_client()), organization, first="2024-04-28", last="2024-04-28"
    )

    rows = parsed(content, "utf-8-sig")
    assert rows[2] == ["From", "28.04.2024", "to", "28.04.2024"]
    assert [row[0] for row in rows[5:-2]] == [str(n) for n in range(1, 24)]
    assert {row[1] for row in rows[5:-2]} == {"28.04.2024"}


@pytest.mark.parametrize(
    "query",
    [
        {"first": "2024-05-02", "last": "2024-05-01"},
        {"first": "0001-01-01"},
        {"last": "9999-12-31"},
        {"first": "x"},
        {"encoding": "utf-7"},
    ],
)
def test_invalid_period_or_encoding_redirects_to_the_page_with_an_error(query: dict[str, str]) -> None:
    organization = make_log(3)

    response = superuser_client().get(
        f"/admin/ledger/organization/{organization.pk}/statement.csv", query, follow=True
    )

    assert response.redirect_chain
    assert 'class="errornote"' in response.content.decode()
    assert response.context["statement"].count == 3
