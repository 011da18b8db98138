import re
from datetime import timedelta
from html import unescape
from uuid import uuid4

import pytest
from django.db import connection
from django.db.models import Model
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from ingest import acts, asking, inbox
from ingest.models import (
    Act,
    ConflictingDelivery,
    IgnoredDelivery,
    RejectedDelivery,
    RepeatedDelivery,
    UnrecognizedDelivery,
    Webhook,
)
from ledger.browsing import BoundedPaginator
from ledger.models import Payment
from ledger.money import rubles_text
from tests.browsers import listed, page, staff, superuser
from tests.cast import ROMASHKA, VASILEK, body, posted, received, terms

pytestmark = pytest.mark.django_db
FAILED, RECEIVED = Webhook.Status.FAILED, Webhook.Status.RECEIVED
APPLIED, DISMISSED = Webhook.Status.APPLIED, Webhook.Status.DISMISSED
SCRIPT = "<script>alert(1)</script>"
REPLAY = "/admin/ingest/webhook/act/replay/"
DISMISS = "/admin/ingest/webhook/act/dismiss/"
RESOLVE = "/admin/ingest/webhook/act/resolve/"
WHY = "the bug is repaired"
KINDS = [Webhook, RejectedDelivery, IgnoredDelivery, UnrecognizedDelivery, ConflictingDelivery]


@pytest.fixture
def boss() -> Client:
    return superuser()


def failed(**fields: object) -> Webhook:
    return received(status=FAILED, attempts=5, **{"last_error": "it broke", **fields})


def conflicting_with(webhook: Webhook, **changed: object) -> ConflictingDelivery:
    told = body(terms(1, operation_id=webhook.operation_id), **changed)
    return ConflictingDelivery.objects.create(webhook=webhook, difference="amount_kopecks", body=told)


def shown(browser: Client, row: Model) -> str:
    answer = browser.get(page(type(row), "change", row.pk))
    assert answer.status_code == 200
    return answer.content.decode()


def select(browser: Client, *webhooks: Webhook, **more: str) -> HttpResponse:
    """Tick these webhooks in the list and choose Replay."""
    ticked = {"action": "replay_selected", "_selected_action": [webhook.pk for webhook in webhooks]}
    return browser.post(page(Webhook, "changelist"), {**ticked, "index": "0", **more}, follow=True)


def confirm(browser: Client, asked: HttpResponse, reason: str = WHY) -> list[str]:
    """Give a reason on a confirmation page and press its button; returns what the act came to."""
    content = asked.content.decode()
    form = re.search(r'<form method="post" action="([^"]*)" class="act">', content)
    assert form, "the page has no button"
    ids = re.search(r'name="ids" value="([^"]*)"', content)
    told = {"reason": reason} | ({"ids": ids[1]} if ids else {})
    answer = browser.post(unescape(form[1]), told, follow=True)
    assert answer.status_code == 200
    return [f"{count} {name}" for count, name in answer.context.get("outcomes", [])]


def said(answer: HttpResponse) -> str:
    return " ".join(map(str, answer.context["messages"]))


def statuses() -> list[str]:
    return list(Webhook.objects.order_by("id").values_list("status", flat=True))


# --- what is shown -------------------------------------------------------------------------------


def test_the_list_tells_each_webhooks_state_and_error(boss: Client) -> None:
    webhook = received(terms(145_000_00), status=FAILED, attempts=4, last_error="x" * 500)

    content = boss.get(page(Webhook, "changelist")).content.decode()

    for text in [str(webhook.operation_id), "failed", ROMASHKA, rubles_text(145_000_00), "PAY-328", ">4<"]:
        assert text in content
    assert "x" * 79 + "…" in content  # shortened


def test_webhooks_are_filtered_by_status(boss: Client) -> None:
    webhook = failed()
    received()

    assert listed(boss, Webhook, status__exact="failed") == [str(webhook)]


def test_a_webhook_is_found_by_operation_id_in_any_usual_spelling(boss: Client) -> None:
    webhook = received()
    received()

    assert listed(boss, Webhook, q=f" {{{str(webhook).upper()}}}") == [str(webhook)]
    assert listed(boss, Webhook, q="nonsense'") == []


def test_failed_and_dismissed_webhooks_are_found_by_inn(boss: Client) -> None:
    webhooks = [received(terms(), status=status) for status in [DISMISSED, FAILED, APPLIED, RECEIVED]]
    received(terms(inn=VASILEK), status=FAILED)

    assert listed(boss, Webhook, q=ROMASHKA) == [str(webhooks[1]), str(webhooks[0])]


def test_the_body_is_shown_indented_with_its_numbers_as_written_and_as_exact_bytes(boss: Client) -> None:
    webhook = received(body='{"amount":1.50,"amount":1e2,"note":"счёт"}'.encode())

    content = shown(boss, webhook)

    indented = (
        "{\n  &quot;amount&quot;: 1.50,\n  &quot;amount&quot;: 1e2,\n  &quot;note&quot;: &quot;счёт&quot;\n}"
    )
    assert indented in content
    assert r"&quot;note&quot;:&quot;\xd1\x81\xd1\x87\xd1\x91\xd1\x82&quot;}" in content


@pytest.mark.parametrize(
    "raw", [b"", b"\xff\xfe", b"[" * 60_000, b'{"a":'], ids=["empty", "binary", "deep", "cut"]
)
def test_a_body_that_is_no_json_is_shown_as_exact_bytes(boss: Client, raw: bytes) -> None:
    inbox.keep_rejected(raw, "body: must be valid JSON")

    content = shown(boss, RejectedDelivery.objects.get())

    assert "not JSON" in content
    assert repr(raw)[2:-1].replace('"', "&quot;") in content


def test_whatever_the_bank_sends_is_shown_as_text(boss: Client) -> None:
    told = terms(document_number=SCRIPT)
    webhook = received(told, status=FAILED, last_error=SCRIPT)
    inbox.keep_rejected(SCRIPT.encode(), SCRIPT)
    conflict = conflicting_with(webhook, comment=SCRIPT)
    rejected = RejectedDelivery.objects.get()

    contents = [shown(boss, row) for row in [webhook, rejected, conflict]]
    contents += [boss.get(page(type(row), "changelist")).content.decode() for row in [webhook, rejected]]
    contents.append(select(boss, webhook).content.decode())

    for content in contents:
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in content
        assert "<script>alert" not in content


def test_a_webhook_shows_its_deliveries_and_links_the_conflicting_ones(boss: Client) -> None:
    webhook = received()
    RepeatedDelivery.objects.bulk_create(RepeatedDelivery(webhook=webhook) for _ in range(2))
    conflict = conflicting_with(webhook)

    content = shown(boss, webhook)

    assert "4: 1 stored, 2 repeated, 1 conflicting" in content
    assert page(ConflictingDelivery, "change", conflict.pk) in content
    assert ": other amount<" in content
    every = re.search(r'href="([^"]*)">all of them', content)
    assert every
    assert len(boss.get(every[1]).context["cl"].result_list) == 1


def test_a_webhook_links_the_payment_it_became(boss: Client) -> None:
    told = terms()
    posted(told)
    webhook = received(told, status=APPLIED)

    assert page(Payment, "change", Payment.objects.get().pk) in shown(boss, webhook)


def test_rejected_deliveries_show_why_newest_first(boss: Client) -> None:
    inbox.keep_rejected(b"1", "amount: is missing")
    inbox.keep_rejected(b"2", "amount: must be greater than zero")

    assert listed(boss, RejectedDelivery) == ["amount: must be greater than zero", "amount: is missing"]


def test_conflicting_deliveries_are_found_by_operation_id(boss: Client) -> None:
    webhook = received()
    conflicting_with(webhook)
    conflicting_with(received())

    assert listed(boss, ConflictingDelivery, q=str(webhook)) == ["other amount"]
    assert listed(boss, ConflictingDelivery, q="nonsense") == []


@pytest.mark.parametrize("model", KINDS)
def test_not_even_a_superuser_changes_what_the_bank_sent(boss: Client, model: type[Model]) -> None:
    inbox.keep_rejected(b"1", "amount: is missing")
    inbox.keep_ignored(b"1", "outgoing", "tbank")
    inbox.keep_unrecognized(b"1", b"1", "unknown", "tbank")
    conflicting_with(failed())
    row = model.objects.get()
    before = model.objects.values().get()

    for url in [page(model, "add"), page(model, "change", row.pk), page(model, "delete", row.pk)]:
        assert boss.post(url, {"post": "yes", "status": "applied", "reason": "x"}).status_code == 403
    boss.post(
        page(model, "changelist"), {"action": "delete_selected", "_selected_action": row.pk, "post": "yes"}
    )

    assert model.objects.values().get() == before


@pytest.mark.parametrize("model", KINDS)
def test_a_list_costs_the_same_few_statements_and_reads_no_body(boss: Client, model: type[Model]) -> None:
    def fill() -> None:
        inbox.keep_rejected(b"1", "amount: is missing")
        inbox.keep_ignored(b"1", "outgoing", "tbank")
        inbox.keep_unrecognized(b"1", uuid4().bytes, "unknown", "tbank")
        conflicting_with(failed())

    fill()
    with CaptureQueriesContext(connection) as short:
        listed(boss, model)
    for _ in range(30):
        fill()
    with CaptureQueriesContext(connection) as long:
        listed(boss, model)

    assert len(long) == len(short) <= 7
    assert not [each["sql"] for each in long if re.search(r"\Wbody\W", each["sql"])]
    counts = [each["sql"] for each in long if "COUNT(" in each["sql"]]
    assert len(counts) == 1
    assert f"LIMIT {BoundedPaginator.rows_max})" in counts[0]


# --- replay --------------------------------------------------------------------------------------


def test_selected_webhooks_are_replayed_after_a_confirmation(boss: Client) -> None:
    one, other, done, dismissed = failed(), failed(), received(status=APPLIED), received(status=DISMISSED)

    asked = select(boss, one, other, done, dismissed)

    assert statuses() == [FAILED, FAILED, APPLIED, DISMISSED]  # asking changes nothing
    content = asked.content.decode()
    assert "<strong>2 failed webhooks</strong>" in content
    assert "1 applied already" in content
    assert "1 dismissed already" in content
    assert str(one) in content
    assert str(done) not in content
    assert confirm(boss, asked) == ["2 done", "1 applied already", "1 dismissed already"]
    assert statuses() == [RECEIVED, RECEIVED, APPLIED, DISMISSED]


def test_the_confirmation_lists_only_the_first(boss: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "SHOWN_MAX", 2)
    webhooks = [failed() for _ in range(3)]

    content = select(boss, *webhooks).content.decode()

    assert [str(webhook) in content for webhook in webhooks] == [True, True, False]
    assert "These are the first 2 of them." in content


def test_nothing_failed_among_the_selected_offers_no_button(boss: Client) -> None:
    content = select(boss, received(status=APPLIED)).content.decode()

    assert "There is nothing to do" in content
    assert "Replay 0" not in content


def test_all_that_match_a_filter_are_replayed(boss: Client) -> None:
    webhooks = [failed() for _ in range(105)]  # more than one page
    received()
    ticked = {"action": "replay_selected", "_selected_action": webhooks[0].pk, "select_across": "1"}

    there = page(Webhook, "changelist") + "?status__exact=failed"
    asked = boss.post(there, {**ticked, "index": "0"}, follow=True)

    assert confirm(boss, asked) == ["105 done"]


def test_too_many_ticked_at_once_are_sent_to_the_filter(
    boss: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "CHOSEN_MAX", 2)

    answer = select(boss, failed(), failed(), failed())

    assert said(answer) == "More than 2 at once: tick all that match the filter instead."


def test_a_failed_webhooks_own_page_has_a_button(boss: Client) -> None:
    webhook = failed()

    link = re.search(rf'href="({REPLAY}[^"]*)">Replay', shown(boss, webhook))
    assert link
    assert confirm(boss, boss.get(link[1])) == ["1 done"]

    assert f'href="{REPLAY}' not in shown(boss, webhook)  # it is received by now


def test_the_second_of_two_admins_is_told(boss: Client) -> None:
    webhook = failed()
    boris = superuser("boris")
    asked, asked_too = select(boss, webhook), select(boris, webhook)

    assert confirm(boss, asked) == ["1 done"]
    assert confirm(boris, asked_too) == ["1 waiting to be applied anyway"]


def test_a_webhooks_page_names_who_replayed_it_and_why(boss: Client) -> None:
    webhook = failed()
    confirm(boss, select(boss, webhook))

    assert re.search(rf"Replay: done.*anna — {WHY}", shown(boss, webhook), re.DOTALL)


def test_whoever_may_only_look_cannot_replay() -> None:
    auditor = staff("view_webhook")
    webhook = failed()

    assert "replay_selected" not in auditor.get(page(Webhook, "changelist")).content.decode()
    assert REPLAY not in shown(auditor, webhook)
    select(auditor, webhook)
    assert auditor.get(REPLAY, {"ids": webhook.pk}).status_code == 403
    for address in [REPLAY, DISMISS, RESOLVE, f"{REPLAY}?all=1", f"{DISMISS}?all=1", f"{RESOLVE}?all=1"]:
        assert auditor.post(address, {"ids": webhook.pk, "reason": WHY}).status_code == 403

    assert statuses() == [FAILED]
    assert not Act.objects.exists()


@pytest.mark.parametrize(
    ("permission", "address"),
    [("replay_webhook", REPLAY), ("dismiss_webhook", DISMISS), ("resolve_conflict", RESOLVE)],
)
def test_each_act_needs_its_own_permission(permission: str, address: str) -> None:
    operator = staff("view_webhook", permission)
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
    browser = superuser()
    careful = Client(enforce_csrf_checks=True)
    careful.cookies = browser.cookies

    assert careful.post(REPLAY, {"ids": failed().pk, "reason": WHY}).status_code == 403
    assert statuses() == [FAILED]


@pytest.mark.parametrize("ids", ["", "x", "1 OR 1=1", "9" * 30, "²", "-1"])
def test_nonsense_for_ids_replays_nothing(boss: Client, ids: str) -> None:
    failed(id=77)

    assert boss.get(REPLAY, {"ids": ids}).status_code == 200
    boss.post(REPLAY, {"ids": ids, "reason": WHY})

    assert statuses() == [FAILED]


@pytest.mark.parametrize("reason", ["", "   ", "x" * 501])
def test_without_a_reason_it_asks_again(boss: Client, reason: str) -> None:
    webhook = failed()

    assert confirm(boss, select(boss, webhook), reason=reason) == []

    assert statuses() == [FAILED]
    assert not Act.objects.exists()


def test_an_act_that_does_not_exist_is_not_found(boss: Client) -> None:
    assert boss.get("/admin/ingest/webhook/act/burn/").status_code == 404


@pytest.mark.parametrize("query", ["received=yesterday", "typo=1", "nothing__isnull=1"])
def test_a_filter_that_is_not_understood_never_means_all(boss: Client, query: str) -> None:
    failed()

    assert boss.get(f"{REPLAY}?all=1&{query}").status_code == 404
    assert boss.post(f"{REPLAY}?all=1&{query}", {"reason": WHY}).status_code == 404

    assert statuses() == [FAILED]


def test_a_dismissed_webhook_says_who_dismissed_it_and_offers_no_button(boss: Client) -> None:
    webhook = failed()
    assert confirm(boss, boss.get(DISMISS, {"ids": webhook.pk})) == ["1 done"]

    content = shown(boss, webhook)

    assert statuses() == [DISMISSED]
    assert re.search(rf"Dismissal: done.*anna — {WHY}", content, re.DOTALL)
    assert REPLAY not in content
    assert DISMISS not in content


def test_conflicts_are_resolved_from_the_list_of_deliveries(boss: Client) -> None:
    webhook = received()
    conflict = conflicting_with(webhook)
    assert f"{RESOLVE}?ids={webhook.pk}" in shown(boss, webhook)
    ticked = {"action": "resolve_selected", "_selected_action": conflict.pk, "index": "0"}

    asked = boss.post(page(ConflictingDelivery, "changelist"), ticked, follow=True)

    assert confirm(boss, asked) == ["1 done"]
    assert listed(boss, ConflictingDelivery, resolved_in__isempty="1") == []
    assert "resolved by anna" in shown(boss, webhook)
    assert RESOLVE not in shown(boss, webhook)


def test_a_large_act_is_left_to_the_background_and_its_page_refreshes(
    boss: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acts, "CHUNK_WEBHOOKS", 2)
    webhooks = [failed() for _ in range(5)]

    assert confirm(boss, select(boss, *webhooks)) == ["3 not yet reached", "2 done"]

    act = Act.objects.get()
    assert "2 of 5 webhooks reached" in shown(boss, act)
    assert 'http-equiv="refresh"' in shown(boss, act)
    while acts.carry_out(act.pk):
        pass
    Webhook.objects.update(status=APPLIED)
    Webhook.objects.filter(pk=webhooks[0].pk).update(status=FAILED, last_error="it broke again")
    content = shown(boss, act)
    assert 'http-equiv="refresh"' not in content
    assert "5 of 5 webhooks reached" in content
    assert re.search(r"<strong>1</strong>\s*<span[^>]*>failed again", content)
    assert "it broke again" in content


@pytest.mark.parametrize("method", ["add", "change", "delete"])
def test_not_even_a_superuser_changes_the_audit_trail(boss: Client, method: str) -> None:
    confirm(boss, select(boss, failed()))
    act = Act.objects.get()

    there = page(Act, method, *([] if method == "add" else [act.pk]))
    assert boss.post(there, {"reason": "another", "post": "yes"}).status_code == 403


# --- what failed, by its cause --------------------------------------------------------------------


def test_a_thousand_failures_of_one_cause_are_one_line_and_replayed_together(boss: Client) -> None:
    for kind in ["ValueError('# & #')"] * 3 + ["KeyError('x')"]:
        failed(error_kind=kind)

    content = boss.get("/admin/ingest/webhook/failures/").content.decode()

    causes = re.findall(r'href="([^"]*)">(\d+)</a></td>', content)
    assert [count for _, count in causes] == ["3", "1"]
    assert len(boss.get(unescape(causes[0][0])).context["cl"].result_list) == 3
    replay_all = re.search(r'href="([^"]*)">Replay all of these', content)
    assert replay_all
    assert confirm(boss, boss.get(unescape(replay_all[1]))) == ["3 done"]
    assert statuses() == [RECEIVED] * 3 + [FAILED]


def test_whoever_may_only_look_sees_the_causes_without_buttons() -> None:
    failed(error_kind="KeyError('x')")

    content = staff("view_webhook").get("/admin/ingest/webhook/failures/").content.decode()

    assert "KeyError(&#x27;x&#x27;)" in content
    assert "act/replay" not in content
    assert staff(name="nobody").get("/admin/ingest/webhook/failures/").status_code == 403


# --- searching ------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["145 000,00 ₽", "145000.00", "145000", "145\u00a0000,00", "PAY-17"])
def test_failed_webhooks_are_found_by_amount_and_document_number(boss: Client, text: str) -> None:
    told = terms(145_000_00, document_number="PAY-17")
    webhook = received(told, status=FAILED)
    failed()
    received(terms(145_000_00, document_number="PAY-17"))

    assert listed(boss, Webhook, q=text) == [str(webhook)]


def test_an_inn_finds_applied_webhooks_by_way_of_the_ledger(boss: Client) -> None:
    told = terms()
    posted(told)
    applied = received(told, status=APPLIED)
    broken = failed()
    failed_elsewhere = received(terms(inn=VASILEK), status=FAILED)

    assert listed(boss, Webhook, q=ROMASHKA) == [str(broken), str(applied)]
    assert listed(boss, Webhook, q=VASILEK) == [str(failed_elsewhere)]


def test_webhooks_are_filtered_by_when_they_were_received(boss: Client) -> None:
    now = timezone.now()
    ages = [timedelta(days=8), timedelta(days=3), timedelta(hours=3), timedelta(minutes=3)]
    webhooks = [received(received_at=now - age) for age in ages]

    found = {period: len(listed(boss, Webhook, received=period)) for period in ("hour", "day", "week")}

    assert found == {"hour": 1, "day": 2, "week": 3}
    assert listed(boss, Webhook, received="hour") == [str(webhooks[-1])]


# --- the story ------------------------------------------------------------------------------------


def test_a_webhooks_page_tells_its_story_in_order(boss: Client) -> None:
    told = terms(145_000_00)
    posted(terms(100_00))
    webhook = failed_one = received(told, status=FAILED, last_error="it broke")
    RepeatedDelivery.objects.create(webhook=webhook)
    conflicting_with(webhook, amount="7")
    confirm(boss, select(boss, failed_one))
    posted(told)
    Webhook.objects.filter(pk=webhook.pk).update(status=APPLIED)

    content = shown(boss, webhook)

    story = ["and stored", "same content", "with other content", "Replay: done", "posted to the ledger"]
    places = [content.index(words) for words in story]
    assert places == sorted(places)
    balance = f"from {rubles_text(100_00)} to {rubles_text(145_100_00)}"
    assert balance in content
    assert f"<td>{rubles_text(7_00)} ≠</td>" in content
    assert "style=" not in content
