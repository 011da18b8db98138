"""The admin pages of bank statements: upload, verdicts, reconciliation, accounts and their calendar."""

import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db.models import F
from django.test import Client

from ingest.models import OperatorAction, Webhook
from ledger.terms import PaymentTerms
from statements import buckets, listing
from statements.admin.bucket_texts import EXPLANATIONS
from statements.buckets import Scope
from statements.coverage import Period
from statements.covered_days import states
from statements.importing import import_statement
from statements.matching import match
from statements.models import BankStatement, Bucket, DayTotal, OwnAccount, StatementLine
from statements.period_proof import prove
from tests.admin_client import admin_url, hidden_fields, staff_client
from tests.factories import make_webhook, post_payments, terms
from tests.markers import every_database, sqlite_run_only
from tests.screenshots.sample_statement import ACCOUNT, Movement, statement

pytestmark = [pytest.mark.django_db, sqlite_run_only]
UPLOAD = "/admin/statements/bankstatement/add/"
RECONCILIATION = "/admin/statements/statementline/reconciliation/"
OPERATOR = ("view_bankstatement", "view_statementline", "view_webhook", "add_bankstatement")
MONDAY, TUESDAY, WEDNESDAY, SATURDAY = (date(2026, 3, day) for day in (16, 17, 18, 21))
PAYER = "7707083893"
CORPUS = Path(__file__).parent / "corpus"


def account(since: date = date(2026, 3, 1)) -> OwnAccount:
    return OwnAccount.objects.create(number=ACCOUNT, since=since)


def movement(number: str = "7", kopecks: int = 10_00) -> Movement:
    return Movement("ООО «Ромашка»", PAYER, number, kopecks)


def import_day(day: date, opening: int, *movements: Movement, **fields: Any) -> None:
    import_statement(statement(day, day, opening, movements, **fields), "")


def uploaded(body: bytes, name: str) -> SimpleUploadedFile:
    return SimpleUploadedFile(name, body)


def text_of(response: Any) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", response.content.decode()).replace("\xa0", " ").split())


# --- upload -------------------------------------------------------------------------------------------


def test_each_uploaded_file_has_its_verdict_with_line_and_reason() -> None:
    account()
    whole = statement(MONDAY, MONDAY, 0, [movement()])
    files = [uploaded(whole, "whole.txt"), uploaded(whole[:300], "cut.txt"), uploaded(b"GIF89a", "photo.gif")]

    text = text_of(staff_client(*OPERATOR).post(UPLOAD, {"file": files}))

    assert "whole.txt proven 1 line, 1 of them new" in text
    assert re.search(r"cut.txt refused Line \d+: The file is cut off", text)
    assert "photo.gif refused Line 1: This is no bank statement for 1C" in text
    assert "1 difference to settle" in text
    assert StatementLine.objects.get().bucket == "missing_webhook"


def test_file_sent_by_the_script_is_answered_by_its_verdict_and_matched_later() -> None:
    account()
    operator = staff_client(*OPERATOR)
    body = statement(MONDAY, MONDAY, 0, [movement()])

    verdict = operator.post(UPLOAD, {"part": "file", "file": uploaded(body, "whole.txt")})
    again = operator.post(UPLOAD, {"part": "file", "file": uploaded(body, "again.txt")})

    assert "<html" not in verdict.content.decode()
    assert "imported before, nothing is new" in text_of(again)
    assert StatementLine.objects.get().bucket == ""
    assert "1 difference" in text_of(operator.post(UPLOAD, {"part": "match"}))


def test_file_of_another_account_offers_to_add_it() -> None:
    account()
    body = statement(MONDAY, MONDAY, 0, []).replace(ACCOUNT.encode(), b"40702810900000009999")

    page = staff_client(*OPERATOR, "add_ownaccount").post(UPLOAD, {"file": uploaded(body, "other.txt")})

    assert "/admin/statements/ownaccount/add/?number=40702810900000009999" in page.content.decode()


def test_partial_statement_names_the_line_of_its_unreadable_document() -> None:
    account()
    body = statement(MONDAY, MONDAY, 0, [movement()]).replace(
        "Сумма=10.00".encode("cp1251"), b"\xd1\xf3\xec\xec\xe0=1e3"
    )

    text = text_of(staff_client(*OPERATOR).post(UPLOAD, {"file": uploaded(body, "odd.txt")}))

    assert re.search(r"1 document is unreadable and not taken: Line \d+: The amount is unreadable", text)
    assert "10,00 ₽ by the bank’s sums, 0,00 ₽ by the documents" in text


def test_newer_file_tells_how_many_lines_the_bank_withdrew() -> None:
    account()
    operator = staff_client(*OPERATOR)
    older = statement(MONDAY, MONDAY, 0, [movement("7"), movement("8")])
    newer = statement(MONDAY, MONDAY, 0, [movement("8")], written_on=SATURDAY)
    operator.post(UPLOAD, {"file": uploaded(older, "older.txt")})

    text = text_of(operator.post(UPLOAD, {"file": uploaded(newer, "newer.txt")}))

    assert "newer.txt proven 1 line, 0 of them new, 1 withdrawn by the bank" in text


def test_unproven_file_names_what_is_wrong_with_its_balances() -> None:
    account()
    broken = (CORPUS / "39-chain-broken-between-days.txt").read_bytes()
    lacking = statement(MONDAY, MONDAY, 0, [movement()]).replace(
        "КонечныйОстаток=10.00\r\n".encode("cp1251"), b""
    )
    files = [uploaded(broken, "broken.txt"), uploaded(lacking, "lacking.txt")]

    text = text_of(staff_client(*OPERATOR).post(UPLOAD, {"file": files}))

    chain, balance = text.split("lacking.txt unproven")
    assert "The balance before 04.03.2026 is not the closing balance of the section before." in chain
    assert "The file lacks balances or turnovers: nothing proves that all documents are there." in balance


def test_auditor_may_not_upload() -> None:
    auditor = staff_client("view_bankstatement")

    assert auditor.get(UPLOAD).status_code == 403
    assert auditor.post(UPLOAD, {"part": "match"}).status_code == 403
    assert auditor.post(UPLOAD, {"file": uploaded(b"", "kl_to_1c.txt")}).status_code == 403
    assert UPLOAD not in auditor.get(admin_url(BankStatement, "changelist")).content.decode()


# --- reconciliation -----------------------------------------------------------------------------------


def payment(kopecks: int, number: str) -> PaymentTerms:
    at = datetime(2026, 3, 16, 9, tzinfo=UTC)
    return terms(kopecks, inn=PAYER, document_number=number, document_date=at)


def reconciled_day() -> Client:
    """One line matched, one without a webhook, and a payment on no statement."""
    account()
    for notified in (payment(10_00, "7"), payment(3_00, "9")):
        make_webhook(notified, status="applied")
        post_payments(notified)
    import_day(MONDAY, 0, movement(), movement("8", 20_00))
    match()
    return staff_client(*OPERATOR)


@every_database
def test_page_shows_the_proof_and_both_sides_of_the_identity() -> None:
    text = text_of(reconciled_day().get(RECONCILIATION))

    assert "Opening balance 0,00 ₽ + Received 30,00 ₽ − Paid out 0,00 ₽ = Closing balance 30,00 ₽" in text
    assert "Proven to the kopeck" in text
    assert (
        "Posted in the ledger 13,00 ₽ − Received by the bank statement 30,00 ₽ = Difference −17,00 ₽" in text
    )
    assert "= Explained −17,00 ₽ ✓ Unexplained 0,00 ₽" in text
    assert "2 differences to settle" in text


def test_heading_names_the_worst_finding() -> None:
    account()
    make_webhook(notified := payment(10_00, "7"), status="applied")
    post_payments(notified)
    import_day(MONDAY, 0, movement())
    match()
    viewer = staff_client(*OPERATOR)

    def heading(first: date, last: date) -> tuple[str, str]:
        headline = viewer.get(RECONCILIATION, {"first": first, "last": last}).context["headline"]
        assert headline["sentence"]
        return headline["severity"], headline["heading"]

    before = date(2026, 2, 1)
    assert heading(before, before) == ("info", "Nothing to reconcile")
    assert heading(MONDAY, MONDAY) == ("ok", "Everything is explained")
    assert heading(MONDAY, TUESDAY) == ("warning", "Days are missing")
    import_day(TUESDAY, 10_00, movement("8"))
    match()
    assert heading(MONDAY, TUESDAY) == ("warning", "1 difference to settle")
    import_day(WEDNESDAY, 31_00)
    assert heading(MONDAY, WEDNESDAY) == ("critical", "The balances don’t add up")
    assert heading(WEDNESDAY, WEDNESDAY) == ("critical", "The balances don’t add up")
    DayTotal.objects.filter(bucket=Bucket.MATCHED).update(ledger=F("ledger") + 5)
    assert heading(MONDAY, WEDNESDAY) == ("critical", "Unexplained")


@pytest.mark.parametrize(
    ("chosen", "first", "last"),
    [
        ({}, MONDAY, MONDAY),
        ({"first": "2026-03-20"}, date(2026, 3, 20), date(2026, 4, 1)),
        ({"last": "2026-03-20"}, date(2026, 2, 18), date(2026, 3, 20)),
        ({"first": "2026-03-17", "last": "2026-03-20"}, TUESDAY, date(2026, 3, 20)),
    ],
)
def test_page_completes_the_chosen_period(chosen: dict[str, str], first: date, last: date) -> None:
    account()
    import_day(MONDAY, 0, movement())

    with patch("statements.admin.period_form.today", return_value=date(2026, 4, 1)):
        page = staff_client(*OPERATOR).get(RECONCILIATION, chosen)

    assert (page.context["choice"].period.first, page.context["choice"].period.last) == (first, last)


def test_period_of_more_than_a_year_is_refused() -> None:
    account()
    viewer = staff_client(*OPERATOR)

    for last, is_refused in (("2027-01-01", False), ("2027-01-02", True)):
        page = text_of(viewer.get(RECONCILIATION, {"first": "2026-01-01", "last": last}))
        assert ("Choose a period of at most a year." in page) == is_refused, last


@every_database
def test_each_bucket_links_to_a_list_with_its_rows() -> None:
    operator = reconciled_day()
    page = operator.get(RECONCILIATION)
    totals = buckets.totals(Scope())

    for bucket in EXPLANATIONS:
        link = re.search(rf'href="(\?[^"]*bucket={bucket.value})#lines"', page.content.decode())
        assert link, bucket
        shown = operator.get(RECONCILIATION + link[1].replace("&amp;", "&")).context
        rows = shown.get("lines") or shown.get("webhooks") or []
        assert len(rows) == totals[bucket].count, bucket


@every_database
def test_button_of_a_bucket_asks_for_a_reason_and_settles_all_of_it() -> None:
    reconciled_day()
    operator = staff_client(*OPERATOR, "settle_line", "view_operatoraction", name="ivan")
    page = operator.get(RECONCILIATION).content.decode()
    link = re.search(r'href="([^"]*/settle/post/[^"]*)"', page)
    assert link
    url = link[1].replace("&amp;", "&")

    confirmation = operator.get(url)
    assert "Without a webhook: 1, 20,00 ₽." in text_of(confirmation)
    form = hidden_fields(confirmation) | {"reason": "the bank confirms it"}
    done = operator.post(url, form)

    assert done.status_code == 302
    assert OperatorAction.objects.get().kind == OperatorAction.Kind.POST
    assert Webhook.objects.get(source="statement").amount_kopecks == 20_00
    assert operator.get(url.replace("/post/", "/accept/")).status_code == 404


def test_viewers_without_the_permission_see_no_buttons() -> None:
    viewer = reconciled_day()

    assert "/settle/" not in viewer.get(RECONCILIATION).content.decode()
    settle = "/admin/statements/statementline/settle/post/"
    assert viewer.get(settle, {"bucket": "missing_webhook"}).status_code == 403


def test_webhooks_are_hidden_from_viewers_without_their_permission() -> None:
    reconciled_day()
    viewer = staff_client("view_statementline", name="ivan")

    page = viewer.get(RECONCILIATION, {"bucket": "not_on_statement", "first": MONDAY, "last": MONDAY})

    assert "You may not view webhooks." in page.content.decode()
    assert "/admin/ingest/webhook/" not in page.content.decode()


@every_database
def test_pages_of_lines_show_each_line_once_in_both_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PAGE_ROWS", 3)
    account()
    import_day(MONDAY, 0, *(movement(str(number)) for number in range(5)))
    import_day(TUESDAY, 50_00, *(movement(str(number)) for number in range(5, 8)))

    pages, cursor = [], None
    while not pages or cursor:
        page = listing.lines_page(Scope(), None, cursor)
        pages.append(page)
        cursor = page.next and listing.parse_cursor(str(page.next))

    assert [[line.number for line in page.rows] for page in pages] == [list("012"), list("345"), list("67")]
    assert pages[0].previous is None
    back = listing.lines_page(Scope(), None, pages[2].previous)
    assert [line.number for line in back.rows] == list("345")
    assert listing.lines_page(Scope(), None, back.previous).previous is None


@pytest.mark.parametrize("text", ["", "1", "2026-03-16.", "2026-03-16.²", "2026-13-01.1", "x.1"])
def test_malformed_cursor_shows_the_first_page(text: str) -> None:
    account()
    import_day(MONDAY, 0, movement())

    page = staff_client(*OPERATOR).get(RECONCILIATION, {"bucket": "", "at": text})

    assert listing.parse_cursor(text) is None
    assert [row.line.number for row in page.context["lines"]] == ["7"]


# --- proof and covered days ---------------------------------------------------------------------------


@every_database
def test_day_within_a_longer_statement_is_proven_by_the_whole_of_it() -> None:
    own = account()
    week = Period(MONDAY, SATURDAY)
    import_statement(statement(week.first, week.last, 5_00, [movement()]), "")

    proof = prove(own, Period(TUESDAY, TUESDAY), date(2026, 4, 1))
    assert (proof.opening, proof.received, proof.closing, proof.holds) == (5_00, 0, 5_00, True)
    last = prove(own, Period(SATURDAY, SATURDAY), date(2026, 4, 1))
    assert (last.opening, last.received, last.closing, last.holds) == (5_00, 10_00, 15_00, True)


@every_database
def test_missing_line_leaves_a_difference() -> None:
    own = account()
    import_day(MONDAY, 0, movement())
    StatementLine.objects.update(is_withdrawn=True)

    proof = prove(own, Period(MONDAY, MONDAY), date(2026, 4, 1))

    assert (proof.difference, proof.holds) == (-10_00, False)


@every_database
def test_calendar_tells_proven_unproven_unfinished_and_missing_days() -> None:
    own = account(since=MONDAY)
    import_day(MONDAY, 0)
    import_day(date(2026, 3, 18), 0, movement(), written_on=date(2026, 3, 18))
    unproven = statement(date(2026, 3, 19), date(2026, 3, 19), 0, [movement()])
    import_statement(unproven.replace(b"=10.00", b"=11.00", 1), "")

    days = states(own, Period(date(2026, 3, 15), date(2026, 3, 22)), today=date(2026, 3, 23))

    assert [state.value for state in days.values()] == [
        *("outside", "covered", "missing", "unfinished", "unproven", "missing", "free", "free"),
    ]


@every_database
def test_account_page_shows_its_calendar_and_fixes_the_number_once_it_has_statements() -> None:
    own = account(since=MONDAY)
    operator = staff_client("view_ownaccount", "add_ownaccount", "change_ownaccount")
    page = admin_url(OwnAccount, "change", own.pk)
    assert 'name="number"' in operator.get(page).content.decode()
    import_day(MONDAY, 0)

    content = operator.get(page).content.decode()

    assert 'name="number"' not in content
    assert re.search(r'class="day-covered"[^>]*first=2026-03-16&amp;last=2026-03-16', content)
    assert operator.get(admin_url(OwnAccount, "delete", own.pk)).status_code == 403


@pytest.mark.parametrize(("year", "shown"), [("2025", 2025), ("", 2026), ("25", 2026), ("two2", 2026)])
def test_calendar_shows_the_chosen_year_or_that_of_the_newest_statement(year: str, shown: int) -> None:
    own = account(since=date(2025, 12, 1))
    import_day(MONDAY, 0)

    page = staff_client("view_ownaccount").get(admin_url(OwnAccount, "change", own.pk), {"year": year})

    assert f"Covered days in {shown}" in text_of(page)


def test_new_account_is_reconciled_at_once() -> None:
    operator = staff_client("view_ownaccount", "add_ownaccount")
    form = {"number": "40702 810 9 0000 0000001", "bank": "Банк", "since": "2026-03-01", "until": ""}

    operator.post(admin_url(OwnAccount, "add"), form)
    wrong = operator.post(admin_url(OwnAccount, "add"), form | {"number": "4070281", "until": "2026-02-28"})

    assert OwnAccount.objects.get().number == ACCOUNT
    assert "An account has 20 digits" in wrong.content.decode()
    assert "This period ends before it begins." in wrong.content.decode()
