"""The admin pages of operator actions on chosen lines, of their undoing, and of unproven statements."""

import re
from dataclasses import replace

import pytest
from django.test import Client

from ingest.models import OperatorAction, Webhook
from statements import actions
from statements.admin.bucket_buttons import OFFERED
from statements.importing import import_statement
from statements.matching import match
from statements.models import BankStatement, Bucket, Match, MatchKey, StatementLine
from tests.admin_client import admin_url, hidden_fields, staff_client
from tests.factories import make_webhook, post_payments, terms
from tests.markers import every_database, sqlite_run_only
from tests.screenshots.sample_statement import statement
from tests.statements.test_pages import (
    MONDAY,
    PAYER,
    RECONCILIATION,
    account,
    import_day,
    movement,
    payment,
    text_of,
)

pytestmark = [pytest.mark.django_db, sqlite_run_only]
SEES = ("view_bankstatement", "view_statementline", "view_webhook", "view_operatoraction")
SETTLE = "/admin/statements/statementline/settle/{}/"
OTHER = "7736050003"
REASON = {"reason": "the bank confirms it"}


@pytest.fixture
def operator() -> Client:
    post_payments(
        terms(1_00, inn=PAYER)
    )  # opens the organization: outside of a test's transaction posting does
    return staff_client(*SEES, "settle_line", "accept_statement", name="ivan")


def three_missing() -> list[StatementLine]:
    account()
    import_day(MONDAY, 0, *(movement(number) for number in "123"))
    match()
    return list(StatementLine.objects.order_by("number"))


def settle(client: Client, kind: str, bucket: str, *lines: StatementLine) -> str:
    """Confirm an action on the lines of `bucket`; return the text of the action's page."""
    query = {"bucket": bucket, "first": MONDAY, "last": MONDAY}
    query |= {"row": [line.pk for line in lines], "chosen": 1} if lines else {}
    page = client.get(SETTLE.format(kind), query)
    assert page.status_code == 200
    done = client.post(page.wsgi_request.get_full_path(), hidden_fields(page) | REASON, follow=True)
    return text_of(done)


def buckets() -> list[str]:
    return list(StatementLine.objects.order_by("number").values_list("bucket", flat=True))


@every_database
def test_chosen_lines_alone_are_settled_and_the_decision_is_undone(operator: Client) -> None:
    first, _second, third = three_missing()

    page = settle(operator, "exclude", "missing_webhook", first, third)

    match()
    assert "2 of 2 done 2 done" in page
    assert buckets() == ["excluded", "missing_webhook", "excluded"]
    settle(operator, "reopen", "excluded", third)
    match()
    assert buckets() == ["excluded", "missing_webhook", "missing_webhook"]
    history = text_of(operator.get(admin_url(StatementLine, "change", third.pk)))
    assert re.search(r"reopening .*exclusion of bank statement lines , ivan: the bank confirms it", history)


def test_form_without_chosen_rows_never_means_the_whole_bucket(operator: Client) -> None:
    three_missing()

    answer = operator.get(SETTLE.format("exclude"), {"bucket": "missing_webhook", "chosen": 1}, follow=True)

    assert "Choose the rows first." in text_of(answer)
    assert not OperatorAction.objects.exists()


@every_database
def test_list_of_a_bucket_offers_what_can_be_done_with_its_rows(operator: Client) -> None:
    first, *_ = three_missing()

    page = operator.get(RECONCILIATION, {"bucket": "missing_webhook"}).content.decode()

    assert len(re.findall(r'<input type="checkbox" name="row"', page)) == 3
    kinds = re.findall(r'formaction="[^"]*/settle/(\w+)/"', page)
    assert kinds == ["post", "exclude", "reopen"]
    line = operator.get(admin_url(StatementLine, "change", first.pk)).content.decode()
    assert re.findall(rf'/settle/(\w+)/\?[^"]*row={first.pk}"', line) == kinds


def test_mismatch_is_shown_beside_what_the_webhook_says(operator: Client) -> None:
    account()
    for notified in (payment(11_00, "1"), replace(payment(10_00, "2"), inn=OTHER)):
        make_webhook(notified, status="applied")
        post_payments(notified)
    import_day(MONDAY, 0, movement("1"), movement("2"))
    match()

    assert buckets() == ["amount_mismatch", "payer_mismatch"]
    shown = {
        bucket: text_of(operator.get(RECONCILIATION, {"bucket": bucket, "first": MONDAY, "last": MONDAY}))
        for bucket in buckets()
    }
    assert "No. 1, 11,00 ₽" in shown["amount_mismatch"]
    assert f"No. 2, {OTHER}" in shown["payer_mismatch"]


def test_page_of_an_action_shows_the_webhooks_that_no_line_explains(operator: Client) -> None:
    account()
    make_webhook(extra := payment(3_00, "9"), status="applied")
    post_payments(extra)
    import_day(MONDAY, 0)
    match()

    assert f"№ 9 {PAYER} 3,00 ₽ done" in settle(operator, "keep", "not_on_statement")


@every_database
def test_match_is_undone_and_made_again_when_its_line_is_reopened(operator: Client) -> None:
    lines = three_missing()
    settle(operator, "post", "missing_webhook", lines[0])
    assert "1 it was posted" not in settle(operator, "exclude", "missing_webhook", lines[1])
    posted = Webhook.objects.get(source="statement")
    Match.objects.update(rank=Match.Rank.NUMBER)  # as if the bank had notified it

    settle(operator, "unmatch", "unposted", lines[0])
    match()
    assert (lines[0].matches.filter(live=True).exists(), buckets()[0]) == (False, Bucket.MISSING_WEBHOOK)

    settle(operator, "reopen", "missing_webhook", lines[0])
    match()
    assert lines[0].matches.get(live=True).webhook_id == posted.pk


@every_database
def test_page_of_an_action_shows_the_refused_lines_first_and_why(operator: Client) -> None:
    lines = three_missing()
    settle(operator, "post", "missing_webhook", lines[0])
    MatchKey.objects.all().delete()
    Match.objects.all().delete()
    Webhook.objects.update(status=Webhook.Status.DISMISSED)
    StatementLine.objects.update(bucket=Bucket.MISSING_WEBHOOK)
    Match.objects.all().delete()

    text = settle(operator, "post", "missing_webhook")

    assert "Refused because: 1 it was posted from the bank statement before" in text
    rows = re.findall(r"№ (\d) 7707083893 10,00 ₽ (no longer possible|done)", text)
    assert rows == [("1", "no longer possible"), ("2", "done"), ("3", "done")]


def unproven_statement() -> BankStatement:
    account()
    body = statement(MONDAY, MONDAY, 0, [movement()]).replace(b"=10.00", b"=11.00", 1)
    import_statement(body, "odd.txt")
    match()
    return BankStatement.objects.get()


def test_unproven_statement_is_accepted_with_a_reason_and_its_lines_can_be_posted(operator: Client) -> None:
    unproven = unproven_statement()
    url = admin_url(BankStatement, "change", unproven.pk)
    accept = f"/admin/statements/bankstatement/{unproven.pk}/accept/"
    assert accept in operator.get(url).content.decode()
    assert "11,00 ₽ by the bank’s sums, 10,00 ₽ by the documents" in text_of(operator.get(accept))
    assert "no proven bank statement has the line" in settle(operator, "post", "missing_webhook")

    done = operator.post(accept, {"digest": "", **REASON}, follow=True)

    assert "odd.txt" in text_of(done)
    page = operator.get(url)
    assert "Taken for complete: ivan: the bank confirms it" in text_of(page)
    assert accept not in page.content.decode()
    assert "proven or accepted" in text_of(operator.post(accept, {"digest": "", **REASON}, follow=True))
    settle(operator, "post", "missing_webhook")
    assert Webhook.objects.get().source == "statement"


@every_database
def test_every_offered_action_opens() -> None:
    client = staff_client(*SEES, "settle_line", "replay_webhook")
    for kind, bucket in OFFERED:
        response = client.get(SETTLE.format(kind.value), {"bucket": bucket.value})
        assert response.status_code == 200, (kind, bucket)


def test_every_action_needs_its_permission_and_that_to_see_webhooks() -> None:
    needed = dict.fromkeys(actions.BUCKETS, "settle_line") | {OperatorAction.Kind.REPLAY: "replay_webhook"}
    viewers = {
        allowed: staff_client(*SEES[:2], *allowed, name=f"viewer {number}")
        for number, allowed in enumerate(
            (each, "view_webhook")[:count] for each in sorted(set(needed.values())) for count in (1, 2)
        )
    }
    viewers["view_webhook",] = staff_client(*SEES, "accept_statement", name="auditor")

    for kind, bucket in dict(sorted(OFFERED)).items():  # one bucket of each kind
        url = f"{SETTLE.format(kind.value)}?bucket={bucket.value}"
        for allowed, viewer in viewers.items():
            is_allowed = {needed[kind], "view_webhook"} <= set(allowed)
            answers = viewer.get(url).status_code, viewer.post(url, {"digest": "", **REASON}).status_code
            assert (403 in answers) != is_allowed, (kind, bucket, allowed, answers)
            assert is_allowed or set(answers) == {403}, (kind, bucket, allowed, answers)


def test_auditors_see_actions_and_their_rows_and_can_do_nothing(operator: Client) -> None:
    first, *_ = three_missing()
    settle(operator, "exclude", "missing_webhook", first)
    unproven = BankStatement.objects.get()
    auditor = staff_client(*SEES, name="vera")

    action = text_of(auditor.get(admin_url(OperatorAction, "change", OperatorAction.objects.get().pk)))
    assert "№ 1 7707083893 10,00 ₽ done" in action
    page = auditor.get(RECONCILIATION, {"bucket": "missing_webhook"}).content.decode()
    assert "checkbox" not in page
    assert "/settle/" not in page
    assert "/settle/" not in auditor.get(admin_url(StatementLine, "change", first.pk)).content.decode()
    refused = auditor.post(SETTLE.format("reopen") + "?bucket=excluded", {"digest": "", **REASON})
    assert refused.status_code == 403
    assert auditor.post(f"/admin/statements/bankstatement/{unproven.pk}/accept/", REASON).status_code == 403
    assert OperatorAction.objects.count() == 1
    assert "№ 1" not in text_of(
        staff_client("view_operatoraction", name="oleg").get(
            admin_url(OperatorAction, "change", OperatorAction.objects.get().pk)
        )
    )
