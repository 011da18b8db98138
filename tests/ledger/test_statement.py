"""A period's statement, on the page and as CSV, of a log whose line n is n rubles, n hours after midnight."""

import csv
import io
import re
from datetime import UTC, date, datetime, time, timedelta
from itertools import chain, pairwise
from typing import Any
from xml.etree import ElementTree as ET
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from ledger import queries, statement, statement_csv
from ledger.admin import balance_chart, organization_page
from ledger.download_slot import DownloadBusy, ExclusiveDownload
from ledger.models import Organization
from ledger.money import format_rubles
from ledger.statement import CHART_POINTS_MAX, CHUNK_ENTRIES, PAGE_ENTRIES, Period
from tests.admin_client import admin_url, staff_client, superuser_client
from tests.factories import IVANOV, ROMASHKA, VASILEK, make_organizations, post_payments, terms
from tests.ledger.test_queries import LONG, append, total, written
from tests.query_plans import assert_index_lookups_only, requires_mysql_explain

pytestmark = pytest.mark.django_db
MOSCOW = ZoneInfo("Europe/Moscow")
FIRST_DAY = date(2024, 4, 28)  # in Moscow, whose midnight is where the log begins
DAY = timedelta(days=1)


def stated(
    organization: Organization, first: date | None = None, last: date | None = None, zone: Any = MOSCOW
) -> statement.Statement:
    return statement.make_statement(organization, Period(first, last, zone))


def seqs(told: statement.Statement) -> list[int]:
    return [line.seq for line in told.lines()]


# --- the period ------------------------------------------------------------------------------------------


def test_a_statement_has_the_lines_of_its_days_and_the_balances_around_them() -> None:
    organization = written(100)

    told = stated(organization, FIRST_DAY + DAY, FIRST_DAY + 2 * DAY)

    assert seqs(told) == list(range(24, 72))
    assert (told.opening, told.closing) == (total(23), total(71))
    assert told.turnover == sum(n * 1_00 for n in range(24, 72))
    assert told.count == 48


def test_days_begin_and_end_at_midnight_of_the_viewers_zone() -> None:
    organization = written(60)

    assert seqs(stated(organization, FIRST_DAY, FIRST_DAY)) == list(range(1, 24))
    assert seqs(stated(organization, FIRST_DAY, FIRST_DAY, UTC)) == list(range(3, 27))
    assert seqs(stated(organization, last=FIRST_DAY - DAY, zone=UTC)) == [1, 2]


def test_a_day_of_a_clock_change_has_its_own_length() -> None:
    """On 31 March 2024 Berlin's had 23 hours."""
    period = Period(date(2024, 3, 31), date(2024, 3, 31), ZoneInfo("Europe/Berlin"))

    assert period.since == datetime(2024, 3, 30, 23, tzinfo=UTC)
    assert period.until == datetime(2024, 3, 31, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "day"),
    [
        ("Africa/Cairo", date(2024, 11, 1)),  # back to 23:00 at midnight
        ("America/Santiago", date(2024, 4, 7)),
        ("Asia/Beirut", date(2024, 10, 27)),
        ("America/Nuuk", date(2024, 10, 27)),
        ("America/Havana", date(2024, 11, 3)),  # back to midnight at one o'clock
        ("Africa/Cairo", date(2024, 4, 26)),  # without a midnight: on to 01:00
        ("America/Santiago", date(2024, 9, 8)),
        ("America/Havana", date(2024, 3, 10)),
        ("Antarctica/Casey", date(2021, 3, 14)),  # back by three hours at midnight
        ("Australia/Lord_Howe", date(2024, 4, 7)),  # by half an hour
        ("Pacific/Apia", date(2011, 12, 31)),  # the day before was left out
    ],
)
def test_each_line_is_on_the_statement_of_the_day_that_it_is_shown_with(zone: str, day: date) -> None:
    at = datetime.combine(day, time(), tzinfo=UTC) - 2 * DAY
    lines = [at + n * timedelta(minutes=15) for n in range(4 * 24 * 4)]
    organization = append(Organization.objects.create(inn=ROMASHKA, opened_at=at), len(lines), times=lines)

    for shown in (day - DAY, day, day + DAY):
        told = stated(organization, shown, shown, ZoneInfo(zone))
        expected = [
            seq for seq, at in enumerate(lines, start=1) if at.astimezone(ZoneInfo(zone)).date() == shown
        ]
        assert seqs(told) == expected


def test_an_open_end_reaches_as_far_as_the_log() -> None:
    organization = written(50)

    assert seqs(stated(organization)) == list(range(1, 51))
    assert seqs(stated(organization, first=FIRST_DAY + 2 * DAY)) == [48, 49, 50]
    assert seqs(stated(organization, last=FIRST_DAY)) == list(range(1, 24))
    assert stated(organization).opening == 0
    assert stated(organization).closing == organization.balance_kopecks


@pytest.mark.parametrize("days", [-400, 400])
def test_a_period_without_lines_opens_and_closes_with_the_same_balance(days: int) -> None:
    organization = written(10)

    told = stated(organization, FIRST_DAY + days * DAY, FIRST_DAY + days * DAY)

    assert told.opening == told.closing == (total(10) if days > 0 else 0)
    assert (told.turnover, told.count, seqs(told), told.page(), told.chart_entries()) == (0, 0, [], [], [])


def test_clocks_that_disagree_cost_no_line_and_count_none_twice() -> None:
    organization = append(written(40), 40, clock=timedelta(hours=-30))  # by a worker whose clock is late

    days = [stated(organization, FIRST_DAY + n * DAY, FIRST_DAY + n * DAY) for n in range(5)]

    assert [seq for told in days for seq in seqs(told)] == list(range(1, 81))
    assert all(a.closing == b.opening for a, b in pairwise(days))


def test_what_is_posted_while_a_statement_is_read_is_not_in_it() -> None:
    post_payments(terms(1_00), terms(2_00))
    told = stated(Organization.objects.get())
    lines = told.lines()
    read = [next(lines)]

    post_payments(terms(4_00))

    read += list(lines)
    assert [line.amount_kopecks for line in read] == [1_00, 2_00]
    assert told.opening + sum(line.amount_kopecks for line in read) == told.closing
    assert [line.seq for line in told.page()] == [2, 1]


# --- as CSV ----------------------------------------------------------------------------------------------

ENCODINGS = {"utf-8": "utf-8-sig", "windows-1251": "cp1251"}


def downloaded(client: Client, organization: Organization, **query: str) -> tuple[Any, bytes]:
    answer = client.get(f"/admin/ledger/organization/{organization.pk}/statement.csv", query)
    assert answer.status_code == 200
    return answer, b"".join(answer.streaming_content)


def parsed(content: bytes, codec: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode(codec), newline=""), delimiter=";", strict=True))


@pytest.mark.parametrize(("encoding", "codec"), ENCODINGS.items())
def test_the_file_is_what_excel_and_1c_read(encoding: str, codec: str) -> None:
    post_payments(terms(145_000_00, document_number="Счёт №1; «срочно»"), terms(50, document_number='a"b'))
    organization = Organization.objects.get()

    answer, content = downloaded(in_moscow(superuser_client()), organization, encoding=encoding)

    assert answer["Content-Type"] == f"text/csv; charset={encoding}"
    today = f"{datetime.now(MOSCOW):%Y-%m-%d}"
    name = f"statement_{ROMASHKA}_2024-04-28_{today}.csv"
    assert answer["Content-Disposition"] == f'attachment; filename="{name}"'
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
        *("145000,00", "145000,00", operation_id),
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
def test_no_document_number_is_a_formula(number: str, encoding: str, codec: str) -> None:
    post_payments(terms(document_number=number))

    _, content = downloaded(superuser_client(), Organization.objects.get(), encoding=encoding)

    cells = [cell for row in parsed(content, codec) for cell in row]
    assert not [cell for cell in cells if cell.lstrip(" \t\r\n\u00a0\u200b?")[:1] in {*"=+-@＝＋－＠"} - {""}]
    assert [cell for cell in cells if cell.startswith("'")]


BEFORE_A_CELL = ["1,", "1;", "1:", "1|", '1,"', '1;"', "1, ", "1,\t", "1;\r\n", "1,\ufeff", "1;;", ",", '"";']


def test_no_document_number_is_a_formula_behind_a_separator() -> None:
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
def test_programs_read_a_document_number_as_the_bank_wrote_it(number: str) -> None:
    post_payments(terms(document_number=number))

    assert parsed(downloaded(superuser_client(), Organization.objects.get())[1], "utf-8-sig")[5][3] == number


def test_what_windows_1251_lacks_becomes_a_question_mark_and_decomposed_letters_are_composed() -> None:
    post_payments(terms(document_number="и\u0306 漢 №5"))

    _, content = downloaded(superuser_client(), Organization.objects.get(), encoding="windows-1251")

    assert parsed(content, "cp1251")[5][3] == "й ? №5"


def test_a_document_number_stays_in_one_row() -> None:
    post_payments(terms(document_number="1\r\n2\u20283\x1b4"))

    assert (
        parsed(downloaded(superuser_client(), Organization.objects.get())[1], "utf-8-sig")[5][3] == "1  2 3 4"
    )


def test_the_file_comes_in_chunks_and_its_sums_agree() -> None:
    organization = written(CHUNK_ENTRIES * 2 + 1)
    told = stated(organization)

    chunks = list(statement_csv.csv_chunks(told, "utf-8"))

    assert len(chunks) == 3
    rows = parsed(b"".join(chunks), "utf-8-sig")
    lines = rows[5:-2]
    assert [int(line[0]) for line in lines] == list(range(1, organization.last_seq + 1))
    opening, turnover, closing = (int(rows[n][5].replace(",", "")) for n in (4, -2, -1))
    assert opening + turnover == closing == total(organization.last_seq)
    assert turnover == sum(int(line[5].replace(",", "")) for line in lines)


def test_of_long_files_one_at_a_time_is_downloaded_and_short_ones_always(
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


def test_a_download_that_is_given_up_or_never_begun_holds_up_no_other() -> None:
    given_up = ExclusiveDownload(iter([b"1", b"2"]))
    assert next(given_up) == b"1"
    with pytest.raises(DownloadBusy):
        ExclusiveDownload(iter([]))
    given_up.close()
    ExclusiveDownload(iter([]))  # nobody closes it
    ExclusiveDownload(iter([])).close()


def test_a_download_keeps_to_a_period_in_the_viewers_zone() -> None:
    organization = written(60)

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
def test_a_period_or_encoding_that_makes_no_sense_is_told_on_the_page(query: dict[str, str]) -> None:
    organization = written(3)

    answer = superuser_client().get(
        f"/admin/ledger/organization/{organization.pk}/statement.csv", query, follow=True
    )

    assert answer.redirect_chain
    assert 'class="errornote"' in answer.content.decode()
    assert answer.context["statement"].count == 3


# --- the page --------------------------------------------------------------------------------------------


def in_moscow(client: Client) -> Client:
    client.cookies["time_zone"] = "Europe/Moscow"
    return client


def shown(client: Client, organization: Organization, **query: str) -> Any:
    answer = client.get(admin_url(Organization, "change", organization.pk), query)
    assert answer.status_code == 200
    return answer


def test_the_page_tells_a_periods_sums_and_lines() -> None:
    organization = written(60)

    answer = shown(in_moscow(superuser_client()), organization, first="2024-04-29", last="2024-04-29")

    content = answer.content.decode()
    for kopecks in (total(23), total(47) - total(23), total(47), total(60)):
        assert format_rubles(kopecks) in content
    assert [line["line"].seq for line in answer.context["lines"]] == list(range(47, 23, -1))
    assert "2024-04-29 00:00:00" in content


def test_the_log_is_leafed_through_by_seq_in_both_directions() -> None:
    organization = written(PAGE_ENTRIES * 2 + 5)
    client, pages, query = superuser_client(), [], ""

    while query is not None:
        answer = client.get(f"{admin_url(Organization, 'change', organization.pk)}?{query}")
        pages.append([line["line"].seq for line in answer.context["lines"]])
        query = answer.context["older"]

    assert [len(lines) for lines in pages] == [PAGE_ENTRIES, PAGE_ENTRIES, 5]
    assert list(chain(*pages)) == list(range(organization.last_seq, 0, -1))
    newer = client.get(f"{admin_url(Organization, 'change', organization.pk)}?{answer.context['newer']}")
    assert [line["line"].seq for line in newer.context["lines"]] == pages[1]
    assert shown(client, organization).context["newer"] is None


def test_leafing_keeps_the_period() -> None:
    organization = written(100)

    answer = shown(superuser_client(), organization, first="2024-04-28", last="2024-04-30")

    assert answer.context["older"].startswith("first=2024-04-28&last=2024-04-30&before=")


@pytest.mark.parametrize("before", ["0", "-1", "x", "9" * 30, str(2**63 - 1), "1"])
def test_a_cursor_out_of_a_strangers_hand_harms_nothing(before: str) -> None:
    shown(superuser_client(), written(3), before=before)


def test_the_log_and_the_file_need_the_logs_permission_and_the_page_the_organizations() -> None:
    organization = written(3)
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


def test_an_unknown_organization_has_no_statement() -> None:
    assert superuser_client().get("/admin/ledger/organization/9/statement.csv").status_code == 404
    assert superuser_client(name="eva").get(admin_url(Organization, "change", 9)).status_code == 302


def test_an_organization_without_payments_has_a_page() -> None:
    make_organizations(IVANOV)

    assert "Nothing was posted" in shown(superuser_client(), Organization.objects.get()).content.decode()


def test_the_page_obeys_the_content_security_policy() -> None:
    content = shown(superuser_client(), written(3)).content.decode()

    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=", content)


# --- the chart -------------------------------------------------------------------------------------------


def test_the_chart_is_well_formed_and_ends_with_the_closing_balance() -> None:
    content = shown(superuser_client(), written(250)).content.decode()

    svg = re.search(r'<svg class="chart balance".*?</svg>', content, re.DOTALL)
    assert svg
    assert ET.fromstring(svg[0]).tag == "svg"
    assert f"{format_rubles(total(250))} after line 250" in svg[0]
    assert svg[0].count("<title>") <= CHART_POINTS_MAX + 1


@pytest.mark.parametrize("lines", [1, 2, 99, 100, 101, 199, 1057])
def test_the_chart_has_few_points_and_always_the_newest(lines: int) -> None:
    chart_entries = stated(written(lines)).chart_entries()

    assert chart_entries[-1].seq == lines
    assert len(chart_entries) <= CHART_POINTS_MAX
    assert len({b.seq - a.seq for a, b in pairwise(chart_entries)}) <= 1


@pytest.mark.parametrize(
    ("low", "high", "levels"),
    [
        (0, 0, [0, 1]),
        (0, 3_33, [0, 1, 2, 3, 4]),
        (0, 333_475_97, [0, 100_000, 200_000, 300_000, 400_000]),
        (1_000_00, 1_000_00, [0, 500, 1000]),
        (990_00, 1_000_00, [990, 995, 1000]),
        (400_00, 1_000_00, [0, 500, 1000]),
    ],
)
def test_levels_are_round_and_begin_at_zero_unless_little_changed(
    low: int, high: int, levels: list[int]
) -> None:
    assert balance_chart.levels_between(low, high) == [level * 1_00 for level in levels]


def test_the_largest_balance_has_levels_too() -> None:
    levels = balance_chart.levels_between(0, 2**63 - 1)
    assert len(levels) <= balance_chart.LEVELS_MAX + 1
    assert levels[-1] >= 2**63 - 1


# --- what it costs ---------------------------------------------------------------------------------------


def test_the_page_of_a_million_lines_takes_as_many_queries_as_that_of_ten_and_a_few() -> None:
    client, short, long = superuser_client(), written(10), written(10, inn=VASILEK)
    Organization.objects.filter(pk=long.pk).update(last_seq=1_000_000)

    def queries_for(organization: Organization) -> list[str]:
        with CaptureQueriesContext(connection) as captured:
            shown(client, organization, first="2024-04-28", last="2024-04-28")
        return [query["sql"] for query in captured]

    few, many = queries_for(short), queries_for(long)
    looked_up = 2 * 3  # three steps more for each end of the period
    assert len(many) - len(few) <= looked_up
    assert len(many) <= 30
    assert not [sql for sql in many if re.search(r"OFFSET|COUNT\(|SUM\(", sql)]


@requires_mysql_explain
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("query", [{}, {"first": "2024-05-01", "last": "2024-05-20"}, {"before": "700"}])
def test_the_page_costs_index_lookups_only(query: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    # Half of so small a table MySQL rightly reads from end to end.
    monkeypatch.setattr(statement, "CHUNK_ENTRIES", 100)
    organization = written(LONG)
    written(LONG, inn=VASILEK)
    viewed = queries.find_organization(ROMASHKA)
    assert viewed

    def read() -> None:
        days = [date.fromisoformat(query[name]) if name in query else None for name in ("first", "last")]
        told = stated(viewed, *days)
        told.page(int(query.get("before", 0)) or None)
        told.chart_entries()
        list(told.lines())

    assert organization.last_seq == LONG
    assert_index_lookups_only(read)
