import re
from datetime import timedelta
from html import unescape
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.db.models import Model
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from core.admin import BoundedPaginator
from ingest import inbox, operator_actions
from ingest.admin import action_views
from ingest.models import (
    ConflictingDelivery,
    DuplicateDelivery,
    IgnoredDelivery,
    OperatorAction,
    RejectedDelivery,
    UnrecognizedDelivery,
    Webhook,
)
from ledger.models import Payment
from ledger.money import format_rubles
from tests.admin_client import admin_url, changelist_rows, hidden_fields, staff_client, superuser_client
from tests.factories import ROMASHKA, VASILEK, make_webhook, payment_body, post_payments, terms

pytestmark = pytest.mark.django_db
FAILED, RECEIVED = Webhook.Status.FAILED, Webhook.Status.RECEIVED
APPLIED, DISMISSED = Webhook.Status.APPLIED, Webhook.Status.DISMISSED
SCRIPT = "<script>alert(1)</script>"
REPLAY = "/admin/ingest/webhook/action/replay/"
DISMISS = "/admin/ingest/webhook/action/dismiss/"
RESOLVE = "/admin/ingest/webhook/action/resolve/"
WHY = "the bug is repaired"
KINDS = [Webhook, RejectedDelivery, IgnoredDelivery, UnrecognizedDelivery, ConflictingDelivery]


@pytest.fixture
def admin_client() -> Client:
    return superuser_client()


def failed(**fields: object) -> Webhook:
    return make_webhook(status=FAILED, attempts=5, **{"last_error": "it broke", **fields})


def conflicting_with(webhook: Webhook, **changed: object) -> ConflictingDelivery:
    told = payment_body(terms(1, operation_id=webhook.operation_id), **changed)
    return ConflictingDelivery.objects.create(webhook=webhook, difference="amount_kopecks", body=told)


def shown(browser: Client, row: Model) -> str:
    answer = browser.get(admin_url(type(row), "change", row.pk))
    assert answer.status_code == 200
    return answer.content.decode()


def select(browser: Client, *webhooks: Webhook, **more: str) -> HttpResponse:
    """Tick these webhooks in the list and choose Replay."""
    ticked = {"action": "replay_selected", "_selected_action": [webhook.pk for webhook in webhooks]}
    return browser.post(admin_url(Webhook, "changelist"), {**ticked, "index": "0", **more}, follow=True)


def confirm(browser: Client, asked: HttpResponse, reason: str = WHY) -> list[str]:
    """Give a reason on a confirmation page and press its button; returns what the act came to."""
    content = asked.content.decode()
    form = re.search(r'<form method="post" action="([^"]*)" class="confirmation">', content)
    assert form, "the page has no button"
    answer = browser.post(unescape(form[1]), {**hidden_fields(asked), "reason": reason}, follow=True)
    assert answer.status_code == 200
    return [f"{count} {name}" for count, name in answer.context.get("outcomes", [])]


def confirm_and_be_asked_again(browser: Client, asked: HttpResponse) -> HttpResponse:
    """The same for a page whose webhooks have changed since: nothing is done, and it asks anew."""
    before, address = statuses(), asked.request["PATH_INFO"] + "?" + asked.request["QUERY_STRING"]
    answer = browser.post(address, {**hidden_fields(asked), "reason": WHY})
    assert "Nothing is done yet" in said(answer)
    assert WHY in answer.content.decode()  # the reason needs no typing anew
    assert (statuses(), OperatorAction.objects.count()) == (before, 0)
    return answer


def said(answer: HttpResponse) -> str:
    return " ".join(map(str, answer.context["messages"]))


def statuses() -> list[str]:
    return list(Webhook.objects.order_by("id").values_list("status", flat=True))


# --- what is shown -------------------------------------------------------------------------------


def test_the_list_tells_each_webhooks_state_and_error(admin_client: Client) -> None:
    webhook = make_webhook(terms(145_000_00), status=FAILED, attempts=4, last_error="x" * 500)

    content = admin_client.get(admin_url(Webhook, "changelist")).content.decode()

    for text in [str(webhook.operation_id), "failed", ROMASHKA, format_rubles(145_000_00), "PAY-328", ">4<"]:
        assert text in content
    assert "x" * 79 + "…" in content  # shortened


def test_webhooks_are_filtered_by_status(admin_client: Client) -> None:
    webhook = failed()
    make_webhook()

    assert changelist_rows(admin_client, Webhook, status__exact="failed") == [str(webhook)]


def test_a_webhook_is_found_by_operation_id_in_any_usual_spelling(admin_client: Client) -> None:
    webhook = make_webhook()
    make_webhook()

    assert changelist_rows(admin_client, Webhook, q=f" {{{str(webhook).upper()}}}") == [str(webhook)]
    assert changelist_rows(admin_client, Webhook, q="nonsense'") == []


def test_failed_and_dismissed_webhooks_are_found_by_inn(admin_client: Client) -> None:
    webhooks = [make_webhook(terms(), status=status) for status in [DISMISSED, FAILED, APPLIED, RECEIVED]]
    make_webhook(terms(inn=VASILEK), status=FAILED)

    assert changelist_rows(admin_client, Webhook, q=ROMASHKA) == [str(webhooks[1]), str(webhooks[0])]


def test_the_body_is_shown_indented_with_its_numbers_as_written_and_as_exact_bytes(
    admin_client: Client,
) -> None:
    webhook = make_webhook(body='{"amount":1.50,"amount":1e2,"note":"счёт"}'.encode())

    content = shown(admin_client, webhook)

    indented = (
        "{\n  &quot;amount&quot;: 1.50,\n  &quot;amount&quot;: 1e2,\n  &quot;note&quot;: &quot;счёт&quot;\n}"
    )
    assert indented in content
    assert r"&quot;note&quot;:&quot;\xd1\x81\xd1\x87\xd1\x91\xd1\x82&quot;}" in content


@pytest.mark.parametrize(
    "raw", [b"", b"\xff\xfe", b"[" * 60_000, b'{"a":'], ids=["empty", "binary", "deep", "cut"]
)
def test_a_body_that_is_no_json_is_shown_as_exact_bytes(admin_client: Client, raw: bytes) -> None:
    inbox.record_rejected(inbox.Delivery(raw), "body: must be valid JSON")

    content = shown(admin_client, RejectedDelivery.objects.get())

    assert "not JSON" in content
    assert repr(raw)[2:-1].replace('"', "&quot;") in content


def test_whatever_the_bank_sends_is_shown_as_text(admin_client: Client) -> None:
    told = terms(document_number=SCRIPT)
    webhook = make_webhook(told, status=FAILED, last_error=SCRIPT)
    inbox.record_rejected(inbox.Delivery(SCRIPT.encode()), SCRIPT)
    conflict = conflicting_with(webhook, comment=SCRIPT)
    rejected = RejectedDelivery.objects.get()

    contents = [shown(admin_client, row) for row in [webhook, rejected, conflict]]
    contents += [
        admin_client.get(admin_url(type(row), "changelist")).content.decode() for row in [webhook, rejected]
    ]
    contents.append(select(admin_client, webhook).content.decode())

    for content in contents:
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in content
        assert "<script>alert" not in content


def test_a_webhook_shows_its_deliveries_and_links_the_conflicting_ones(admin_client: Client) -> None:
    webhook = make_webhook()
    DuplicateDelivery.objects.bulk_create(DuplicateDelivery(webhook=webhook) for _ in range(2))
    conflict = conflicting_with(webhook)

    content = shown(admin_client, webhook)

    assert "4: 1 stored, 2 repeated, 1 conflicting" in content
    assert admin_url(ConflictingDelivery, "change", conflict.pk) in content
    assert ": other amount<" in content
    every = re.search(r'href="([^"]*)">all of them', content)
    assert every
    assert len(admin_client.get(every[1]).context["cl"].result_list) == 1


def test_a_webhook_links_the_payment_it_became(admin_client: Client) -> None:
    told = terms()
    post_payments(told)
    webhook = make_webhook(told, status=APPLIED)

    assert admin_url(Payment, "change", Payment.objects.get().pk) in shown(admin_client, webhook)


def test_rejected_deliveries_show_why_newest_first(admin_client: Client) -> None:
    inbox.record_rejected(inbox.Delivery(b"1"), "amount: is missing")
    inbox.record_rejected(inbox.Delivery(b"2"), "amount: must be greater than zero")

    assert changelist_rows(admin_client, RejectedDelivery) == [
        "amount: must be greater than zero",
        "amount: is missing",
    ]


def test_conflicting_deliveries_are_found_by_operation_id(admin_client: Client) -> None:
    webhook = make_webhook()
    conflicting_with(webhook)
    conflicting_with(make_webhook())

    assert changelist_rows(admin_client, ConflictingDelivery, q=str(webhook)) == ["other amount"]
    assert changelist_rows(admin_client, ConflictingDelivery, q="nonsense") == []


@pytest.mark.parametrize("model", KINDS)
def test_not_even_a_superuser_changes_what_the_bank_sent(admin_client: Client, model: type[Model]) -> None:
    inbox.record_rejected(inbox.Delivery(b"1"), "amount: is missing")
    inbox.record_ignored(inbox.Delivery(b"1", "tbank"), "outgoing")
    inbox.record_unrecognized(inbox.Delivery(b"1", "tbank"), b"1", "unknown")
    conflicting_with(failed())
    row = model.objects.get()
    before = model.objects.values().get()

    for url in [
        admin_url(model, "add"),
        admin_url(model, "change", row.pk),
        admin_url(model, "delete", row.pk),
    ]:
        assert admin_client.post(url, {"post": "yes", "status": "applied", "reason": "x"}).status_code == 403
    admin_client.post(
        admin_url(model, "changelist"),
        {"action": "delete_selected", "_selected_action": row.pk, "post": "yes"},
    )

    assert model.objects.values().get() == before


@pytest.mark.parametrize("model", KINDS)
def test_a_list_costs_the_same_few_statements_and_reads_no_body(
    admin_client: Client, model: type[Model]
) -> None:
    def fill() -> None:
        inbox.record_rejected(inbox.Delivery(b"1"), "amount: is missing")
        inbox.record_ignored(inbox.Delivery(b"1", "tbank"), "outgoing")
        inbox.record_unrecognized(inbox.Delivery(b"1", "tbank"), uuid4().bytes, "unknown")
        conflicting_with(failed())

    fill()
    with CaptureQueriesContext(connection) as short:
        changelist_rows(admin_client, model)
    for _ in range(30):
        fill()
    with CaptureQueriesContext(connection) as long:
        changelist_rows(admin_client, model)

    assert len(long) == len(short) <= 7
    assert not [each["sql"] for each in long if re.search(r"\Wbody\W", each["sql"])]
    counts = [each["sql"] for each in long if "COUNT(" in each["sql"]]
    assert len(counts) == 1
    assert f"LIMIT {BoundedPaginator.rows_max})" in counts[0]


# --- replay --------------------------------------------------------------------------------------


def test_selected_webhooks_are_replayed_after_a_confirmation(admin_client: Client) -> None:
    one, other, done, dismissed = (
        failed(),
        failed(),
        make_webhook(status=APPLIED),
        make_webhook(status=DISMISSED),
    )

    asked = select(admin_client, one, other, done, dismissed)

    assert statuses() == [FAILED, FAILED, APPLIED, DISMISSED]  # asking changes nothing
    content = asked.content.decode()
    assert "<strong>2 failed webhooks</strong>" in content
    assert "1 applied already" in content
    assert "1 dismissed already" in content
    assert str(one) in content
    assert str(done) not in content
    assert confirm(admin_client, asked) == ["2 done", "1 applied already", "1 dismissed already"]
    assert statuses() == [RECEIVED, RECEIVED, APPLIED, DISMISSED]


def test_the_confirmation_lists_only_the_first(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(action_views, "SHOWN_MAX", 2)
    webhooks = [failed() for _ in range(3)]

    content = select(admin_client, *webhooks).content.decode()

    assert [str(webhook) in content for webhook in webhooks] == [True, True, False]
    assert "These are the first 2 of them." in content


def test_nothing_failed_among_the_selected_offers_no_button(admin_client: Client) -> None:
    content = select(admin_client, make_webhook(status=APPLIED)).content.decode()

    assert "There is nothing to do" in content
    assert "Replay 0" not in content


def test_all_that_match_a_filter_are_replayed(admin_client: Client) -> None:
    webhooks = [failed() for _ in range(105)]  # more than one page
    make_webhook()
    ticked = {"action": "replay_selected", "_selected_action": webhooks[0].pk, "select_across": "1"}

    there = admin_url(Webhook, "changelist") + "?status__exact=failed"
    asked = admin_client.post(there, {**ticked, "index": "0"}, follow=True)

    assert confirm(admin_client, asked) == ["105 done"]


@pytest.mark.parametrize(
    "address",
    [f"{DISMISS}?status__exact=failed&all=1", f"{DISMISS}?status__exact=failed&error_fingerprint=&all=1"],
    ids=["all that match", "all of one cause"],
)
def test_what_fails_after_the_confirmation_page_is_asked_about_again(
    admin_client: Client, address: str
) -> None:
    failed()
    asked = admin_client.get(address)
    for _ in range(3):
        failed()

    asked_again = confirm_and_be_asked_again(admin_client, asked)

    assert "<strong>4 failed webhooks</strong>" in asked_again.content.decode()
    assert confirm(admin_client, asked_again) == ["4 done"]


@pytest.mark.parametrize("query", ["ids={id}", "status__exact=failed&all=1"])
def test_a_webhook_replayed_and_failed_again_after_the_page_is_asked_about_again(
    admin_client: Client, query: str
) -> None:
    webhook = failed()
    asked = admin_client.get(f"{DISMISS}?{query.format(id=webhook.pk)}")
    replayed = operator_actions.create(OperatorAction.Kind.REPLAY, [webhook.pk], User.objects.get(), WHY)
    operator_actions.run_chunk(replayed.pk)
    Webhook.objects.update(status=FAILED, last_error="another error")

    answer = admin_client.post(
        asked.request["PATH_INFO"] + f"?{query.format(id=webhook.pk)}",
        {**hidden_fields(asked), "reason": WHY},
    )

    assert "Nothing is done yet" in said(answer)
    assert "another error" in answer.content.decode()
    assert statuses() == [FAILED]
    assert confirm(admin_client, answer) == ["1 done"]


def test_a_webhook_exchanged_for_another_is_asked_about_again_though_their_number_is_the_same(
    admin_client: Client,
) -> None:
    webhook = failed()
    asked = admin_client.get(f"{REPLAY}?status__exact=failed&all=1")
    Webhook.objects.filter(pk=webhook.pk).update(status=APPLIED)
    failed()

    confirm_and_be_asked_again(admin_client, asked)


def test_a_conflict_delivered_after_the_confirmation_page_is_asked_about_again(admin_client: Client) -> None:
    webhook = make_webhook()
    conflicting_with(webhook)
    asked = admin_client.get(RESOLVE, {"ids": webhook.pk})
    conflicting_with(webhook)

    asked_again = confirm_and_be_asked_again(admin_client, asked)

    assert confirm(admin_client, asked_again) == ["1 done"]
    assert not ConflictingDelivery.objects.filter(resolved_by=None).exists()


def test_too_many_ticked_at_once_are_sent_to_the_filter(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(action_views, "SELECTED_MAX", 2)

    answer = select(admin_client, failed(), failed(), failed())

    assert said(answer) == "More than 2 at once: tick all that match the filter instead."


def test_a_failed_webhooks_own_page_has_a_button(admin_client: Client) -> None:
    webhook = failed()

    link = re.search(rf'href="({REPLAY}[^"]*)">Replay', shown(admin_client, webhook))
    assert link
    assert confirm(admin_client, admin_client.get(link[1])) == ["1 done"]

    assert f'href="{REPLAY}' not in shown(admin_client, webhook)  # it is received by now


def test_the_second_of_two_admins_is_told(admin_client: Client) -> None:
    webhook = failed()
    boris = superuser_client("boris")
    asked, asked_too = select(admin_client, webhook), select(boris, webhook)

    assert confirm(admin_client, asked) == ["1 done"]
    assert confirm(boris, asked_too) == ["1 waiting to be applied anyway"]


def test_a_webhooks_page_names_who_replayed_it_and_why(admin_client: Client) -> None:
    webhook = failed()
    confirm(admin_client, select(admin_client, webhook))

    assert re.search(rf"Replay: done.*anna — {WHY}", shown(admin_client, webhook), re.DOTALL)


def test_whoever_may_only_look_cannot_replay() -> None:
    auditor = staff_client("view_webhook")
    webhook = failed()

    assert "replay_selected" not in auditor.get(admin_url(Webhook, "changelist")).content.decode()
    assert REPLAY not in shown(auditor, webhook)
    select(auditor, webhook)
    assert auditor.get(REPLAY, {"ids": webhook.pk}).status_code == 403
    for address in [REPLAY, DISMISS, RESOLVE, f"{REPLAY}?all=1", f"{DISMISS}?all=1", f"{RESOLVE}?all=1"]:
        assert auditor.post(address, {"ids": webhook.pk, "reason": WHY}).status_code == 403

    assert statuses() == [FAILED]
    assert not OperatorAction.objects.exists()


@pytest.mark.parametrize(
    ("permission", "address"),
    [("replay_webhook", REPLAY), ("dismiss_webhook", DISMISS), ("resolve_conflict", RESOLVE)],
)
def test_each_act_needs_its_own_permission(permission: str, address: str) -> None:
    operator = staff_client("view_webhook", permission)
    webhook = failed()
    conflicting_with(webhook)

    for other in {REPLAY, DISMISS, RESOLVE} - {address}:
        assert operator.post(other, {"ids": webhook.pk, "reason": WHY}).status_code == 403
    assert confirm(operator, operator.get(address, {"ids": webhook.pk})) == ["1 done"]


def test_a_stranger_is_asked_to_log_in() -> None:
    answer = Client().post(REPLAY, {"ids": failed().pk, "reason": WHY})

    assert answer.headers["Location"].startswith(reverse("admin:login"))
    assert statuses() == [FAILED]


def test_a_replay_from_another_site_is_refused() -> None:
    browser = superuser_client()
    careful = Client(enforce_csrf_checks=True)
    careful.cookies = browser.cookies

    assert careful.post(REPLAY, {"ids": failed().pk, "reason": WHY}).status_code == 403
    assert statuses() == [FAILED]


@pytest.mark.parametrize("ids", ["", "x", "1 OR 1=1", "9" * 30, "²", "-1"])
def test_nonsense_for_ids_replays_nothing(admin_client: Client, ids: str) -> None:
    failed(id=77)

    assert admin_client.get(REPLAY, {"ids": ids}).status_code == 200
    admin_client.post(REPLAY, {"ids": ids, "reason": WHY})

    assert statuses() == [FAILED]


@pytest.mark.parametrize("reason", ["", "   ", "x" * 501])
def test_without_a_reason_it_asks_again(admin_client: Client, reason: str) -> None:
    webhook = failed()

    assert confirm(admin_client, select(admin_client, webhook), reason=reason) == []

    assert statuses() == [FAILED]
    assert not OperatorAction.objects.exists()


def test_an_act_that_does_not_exist_is_not_found(admin_client: Client) -> None:
    assert admin_client.get("/admin/ingest/webhook/action/burn/").status_code == 404


@pytest.mark.parametrize("query", ["received=yesterday", "typo=1", "nothing__isnull=1"])
def test_a_filter_that_is_not_understood_never_means_all(admin_client: Client, query: str) -> None:
    failed()

    assert admin_client.get(f"{REPLAY}?all=1&{query}").status_code == 404
    assert admin_client.post(f"{REPLAY}?all=1&{query}", {"reason": WHY}).status_code == 404

    assert statuses() == [FAILED]


def test_a_dismissed_webhook_says_who_dismissed_it_and_offers_no_button(admin_client: Client) -> None:
    webhook = failed()
    assert confirm(admin_client, admin_client.get(DISMISS, {"ids": webhook.pk})) == ["1 done"]

    content = shown(admin_client, webhook)

    assert statuses() == [DISMISSED]
    assert re.search(rf"Dismissal: done.*anna — {WHY}", content, re.DOTALL)
    assert REPLAY not in content
    assert DISMISS not in content


def test_conflicts_are_resolved_from_the_list_of_deliveries(admin_client: Client) -> None:
    webhook = make_webhook()
    conflict = conflicting_with(webhook)
    assert f"{RESOLVE}?ids={webhook.pk}" in shown(admin_client, webhook)
    ticked = {"action": "resolve_selected", "_selected_action": conflict.pk, "index": "0"}

    asked = admin_client.post(admin_url(ConflictingDelivery, "changelist"), ticked, follow=True)

    assert confirm(admin_client, asked) == ["1 done"]
    assert changelist_rows(admin_client, ConflictingDelivery, resolved_by__isempty="1") == []
    assert "resolved by anna" in shown(admin_client, webhook)
    assert RESOLVE not in shown(admin_client, webhook)


def test_a_large_act_is_left_to_the_background_and_its_page_refreshes(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator_actions, "CHUNK_WEBHOOKS", 2)
    webhooks = [failed() for _ in range(5)]

    assert confirm(admin_client, select(admin_client, *webhooks)) == ["3 not yet reached", "2 done"]

    action = OperatorAction.objects.get()
    assert "2 of 5 webhooks reached" in shown(admin_client, action)
    assert 'http-equiv="refresh"' in shown(admin_client, action)
    while operator_actions.run_chunk(action.pk):
        pass
    Webhook.objects.update(status=APPLIED)
    Webhook.objects.filter(pk=webhooks[0].pk).update(status=FAILED, last_error="it broke again")
    content = shown(admin_client, action)
    assert 'http-equiv="refresh"' not in content
    assert "5 of 5 webhooks reached" in content
    assert re.search(r"<strong>1</strong>\s*<span[^>]*>failed again", content)
    assert "it broke again" in content


@pytest.mark.parametrize("method", ["add", "change", "delete"])
def test_not_even_a_superuser_changes_the_audit_trail(admin_client: Client, method: str) -> None:
    confirm(admin_client, select(admin_client, failed()))
    action = OperatorAction.objects.get()

    there = admin_url(OperatorAction, method, *([] if method == "add" else [action.pk]))
    assert admin_client.post(there, {"reason": "another", "post": "yes"}).status_code == 403


# --- what failed, by its cause --------------------------------------------------------------------


def test_a_thousand_failures_of_one_cause_are_one_line_and_replayed_together(admin_client: Client) -> None:
    for kind in ["ValueError('# & #')"] * 3 + ["KeyError('x')"]:
        failed(error_fingerprint=kind)

    content = admin_client.get("/admin/ingest/webhook/failures/").content.decode()

    causes = re.findall(r'href="([^"]*)">(\d+)</a></td>', content)
    assert [count for _, count in causes] == ["3", "1"]
    assert len(admin_client.get(unescape(causes[0][0])).context["cl"].result_list) == 3
    replay_all = re.search(r'href="([^"]*)">Replay all of these', content)
    assert replay_all
    assert confirm(admin_client, admin_client.get(unescape(replay_all[1]))) == ["3 done"]
    assert statuses() == [RECEIVED] * 3 + [FAILED]


def test_whoever_may_only_look_sees_the_causes_without_buttons() -> None:
    failed(error_fingerprint="KeyError('x')")

    content = staff_client("view_webhook").get("/admin/ingest/webhook/failures/").content.decode()

    assert "KeyError(&#x27;x&#x27;)" in content
    assert "action/replay" not in content
    assert staff_client(name="nobody").get("/admin/ingest/webhook/failures/").status_code == 403


# --- searching ------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["145 000,00 ₽", "145000.00", "145000", "145\u00a0000,00", "PAY-17"])
def test_failed_webhooks_are_found_by_amount_and_document_number(admin_client: Client, text: str) -> None:
    told = terms(145_000_00, document_number="PAY-17")
    webhook = make_webhook(told, status=FAILED)
    failed()
    make_webhook(terms(145_000_00, document_number="PAY-17"))

    assert changelist_rows(admin_client, Webhook, q=text) == [str(webhook)]


def test_an_inn_finds_applied_webhooks_by_way_of_the_ledger(admin_client: Client) -> None:
    told = terms()
    post_payments(told)
    applied = make_webhook(told, status=APPLIED)
    broken = failed()
    failed_elsewhere = make_webhook(terms(inn=VASILEK), status=FAILED)

    assert changelist_rows(admin_client, Webhook, q=ROMASHKA) == [str(broken), str(applied)]
    assert changelist_rows(admin_client, Webhook, q=VASILEK) == [str(failed_elsewhere)]


def test_webhooks_are_filtered_by_when_they_were_received(admin_client: Client) -> None:
    now = timezone.now()
    ages = [timedelta(days=8), timedelta(days=3), timedelta(hours=3), timedelta(minutes=3)]
    webhooks = [make_webhook(received_at=now - age) for age in ages]

    found = {
        period: len(changelist_rows(admin_client, Webhook, received=period))
        for period in ("hour", "day", "week")
    }

    assert found == {"hour": 1, "day": 2, "week": 3}
    assert changelist_rows(admin_client, Webhook, received="hour") == [str(webhooks[-1])]


# --- the story ------------------------------------------------------------------------------------


def test_a_webhooks_page_tells_its_story_in_order(admin_client: Client) -> None:
    told = terms(145_000_00)
    post_payments(terms(100_00))
    webhook = failed_one = make_webhook(told, status=FAILED, last_error="it broke")
    DuplicateDelivery.objects.create(webhook=webhook)
    conflicting_with(webhook, amount="7")
    confirm(admin_client, select(admin_client, failed_one))
    post_payments(told)
    Webhook.objects.filter(pk=webhook.pk).update(status=APPLIED)

    content = shown(admin_client, webhook)

    story = ["and stored", "same content", "with other content", "Replay: done", "posted to the ledger"]
    places = [content.index(words) for words in story]
    assert places == sorted(places)
    balance = f"from {format_rubles(100_00)} to {format_rubles(145_100_00)}"
    assert balance in content
    assert f"<td>{format_rubles(7_00)} ≠</td>" in content
    assert "style=" not in content
