"""Operators decide suspected duplicates: two payments, or one."""

import json
import threading
from html import unescape
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from ingest import operator_actions, suspected_duplicates
from ingest.models import OperatorAction, OperatorActionItem, SuspectedDuplicate, Webhook
from ingest.reconciliation import reconcile
from ledger.verification import verify
from tests.admin_client import admin_url, changelist_rows, hidden_fields, staff_client, superuser_client
from tests.factories import ROMASHKA, balances, make_organizations, make_webhook, terms
from tests.ingest.banks.conftest import load_sample
from tests.ingest.test_correction_actions import run
from worker.applying import apply_batch
from worker.retention import FINAL_STATUSES

pytestmark = pytest.mark.django_db
Kind, State, Status = OperatorAction.Kind, SuspectedDuplicate.State, Webhook.Status
MODES = ["mark", "hold"]


@pytest.fixture(params=MODES)
def pair(request: pytest.FixtureRequest, settings: Any) -> SuspectedDuplicate:
    return make_pair(request.param, settings)


def make_pair(mode: str, settings: Any, kopecks: int = 100_00) -> SuspectedDuplicate:
    settings.SUSPECTED_DUPLICATES = mode
    make_organizations(ROMASHKA)
    make_webhook(terms(kopecks))
    later = make_webhook(terms(kopecks))
    apply_batch(10)
    return SuspectedDuplicate.objects.get(webhook=later)


def state_of(pair: SuspectedDuplicate) -> tuple[str, str, int]:
    """Return the states of the pair and of its later webhook, and the balance."""
    pair = SuspectedDuplicate.objects.get(pk=pair.pk)
    assert not [*verify(), *reconcile()]
    return pair.state, pair.webhook.status, balances()[ROMASHKA]


def test_cleared_pair_is_two_payments(pair: SuspectedDuplicate) -> None:
    assert run(Kind.CLEAR, pair.webhook) == "done"
    apply_batch(10)

    assert state_of(pair) == (State.CLEARED, Status.APPLIED, 200_00)
    assert SuspectedDuplicate.objects.get().decided_by == OperatorAction.objects.get()


def test_confirmed_duplicate_is_credited_once(pair: SuspectedDuplicate) -> None:
    status = {Status.APPLIED: Status.APPLIED, Status.HELD: Status.DISMISSED}[pair.webhook.status]

    assert run(Kind.CONFIRM, pair.webhook) == "done"
    apply_batch(10)

    assert state_of(pair) == (State.CONFIRMED, status, 100_00)
    assert SuspectedDuplicate.objects.get().decided_by == OperatorAction.objects.get()


def test_decision_is_final(pair: SuspectedDuplicate) -> None:
    assert run(Kind.CLEAR, pair.webhook) == "done"

    assert [run(Kind.CONFIRM, pair.webhook), run(Kind.CLEAR, pair.webhook)] == ["decided", "decided"]
    apply_batch(10)

    assert state_of(pair) == (State.CLEARED, Status.APPLIED, 200_00)


def test_webhook_without_a_pair_is_not_decided(pair: SuspectedDuplicate) -> None:
    assert run(Kind.CONFIRM, pair.first) == "decided"

    assert balances()[ROMASHKA] >= 100_00
    assert not operator_actions.eligible(Kind.CONFIRM, Webhook.objects.filter(pk=pair.first_id))


def test_payment_reversed_before_is_confirmed_without_a_second_reversal(settings: Any) -> None:
    pair = make_pair("mark", settings)
    assert run(Kind.REVERSE, pair.webhook) == "done"

    assert run(Kind.CONFIRM, pair.webhook) == "done"

    assert state_of(pair) == (State.CONFIRMED, Status.APPLIED, 100_00)


def test_held_webhook_is_neither_pending_nor_replayed_nor_corrected(settings: Any) -> None:
    webhook = make_pair("hold", settings).webhook

    assert run(Kind.REPLAY, webhook) == "held"
    assert run(Kind.DISMISS, webhook) == "held"
    assert run(Kind.REVERSE, webhook) == "refused"

    assert Webhook.objects.get(pk=webhook.pk).status == Status.HELD
    assert not Webhook.objects.received().exists()
    assert Status.HELD not in FINAL_STATUSES  # so that retention keeps its body


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("mode", MODES)
def test_opposite_decisions_at_once_have_one_winner(mode: str, settings: Any) -> None:
    pair = make_pair(mode, settings)
    by = User.objects.create(username="anna")
    actions = [
        operator_actions.create(kind, [pair.pk], by, "a reason")
        for kind in (Kind.CLEAR, Kind.CONFIRM, Kind.CLEAR, Kind.CONFIRM)
    ]

    def work(action: OperatorAction) -> None:
        try:
            while operator_actions.run_chunk(action.pk):
                pass
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    apply_batch(10)

    assert sorted(OperatorActionItem.objects.values_list("outcome", flat=True)) == [*["decided"] * 3, "done"]
    cleared = SuspectedDuplicate.objects.get().state == State.CLEARED
    assert state_of(pair)[2] == (200_00 if cleared else 100_00)


def test_statement_clears_pairs_without_an_action(pair: SuspectedDuplicate) -> None:
    assert suspected_duplicates.clear([pair.pk]) == {pair.pk}
    apply_batch(10)

    assert state_of(pair) == (State.CLEARED, Status.APPLIED, 200_00)
    assert SuspectedDuplicate.objects.get().decided_by is None


def test_accounts_come_from_the_adapters() -> None:
    tbank = Webhook(source="tbank", body=json.dumps(load_sample("tbank_transaction")).encode())
    assert all(len(account) == 20 for account in suspected_duplicates.accounts(tbank))
    assert suspected_duplicates.accounts(Webhook(source="tbank", body=b"no JSON")) == ("", "")
    assert suspected_duplicates.accounts(Webhook(source="closed bank", body=b"{}")) == ("", "")
    assert suspected_duplicates.accounts(Webhook(source="tbank", body=b"")) == ("", "")


def page(client: Client, url: str) -> str:
    response = client.get(url)
    assert response.status_code == 200
    return unescape(response.content.decode())


def test_page_shows_both_payments_and_the_buttons_submit(pair: SuspectedDuplicate) -> None:
    client = superuser_client("olga")
    content = page(client, admin_url(SuspectedDuplicate, "change", pair.pk))
    for webhook in (pair.first, pair.webhook):
        assert admin_url(Webhook, "change", webhook.pk) in content
    assert content.count("PAY-328") >= 4  # of each the number and the body
    url = f"/admin/ingest/webhook/action/confirm/?ids={pair.pk}"
    assert url in content

    confirmation = client.get(url)
    assert str(pair.first.operation_id) in confirmation.content.decode()
    response = client.post(
        url.partition("?")[0], {**hidden_fields(confirmation), "reason": "the bank says so"}, follow=True
    )

    assert response.context["outcomes"] == [(1, "done")]
    assert balances()[ROMASHKA] == 100_00
    assert f"{url}" not in page(client, admin_url(SuspectedDuplicate, "change", pair.pk))
    assert "the bank says so" in page(client, admin_url(SuspectedDuplicate, "change", pair.pk))


def test_page_says_that_a_body_is_deleted(pair: SuspectedDuplicate) -> None:
    Webhook.objects.filter(pk=pair.first.pk).update(body=b"")

    content = page(superuser_client("olga"), admin_url(SuspectedDuplicate, "change", pair.pk))

    assert "deleted after the retention period" in content


def test_confirmation_is_stale_once_another_operator_has_decided(pair: SuspectedDuplicate) -> None:
    client = superuser_client("olga")
    url = f"/admin/ingest/webhook/action/clear/?ids={pair.pk}"
    confirmation = client.get(url)
    assert run(Kind.CONFIRM, pair.webhook) == "done"

    client.post(url.partition("?")[0], {**hidden_fields(confirmation), "reason": "they are two"})
    apply_batch(10)

    assert SuspectedDuplicate.objects.get().state == State.CONFIRMED
    assert balances()[ROMASHKA] == 100_00


def test_list_selects_by_state_and_finds_by_operation_id_and_inn(settings: Any) -> None:
    client = superuser_client("olga")
    opened, decided = make_pair("mark", settings), make_pair("mark", settings, kopecks=7)
    run(Kind.CLEAR, decided.webhook)

    assert changelist_rows(client, SuspectedDuplicate, state__exact="open") == [str(opened)]
    assert changelist_rows(client, SuspectedDuplicate, q=ROMASHKA) == [str(opened)]
    for operation_id in (decided.first.operation_id, decided.webhook.operation_id):
        assert changelist_rows(client, SuspectedDuplicate, q=str(operation_id)) == [str(decided)]
    form = {"action": "clear_selected", "_selected_action": [opened.pk], "index": "0"}
    response = client.post(admin_url(SuspectedDuplicate, "changelist"), form)
    assert hidden_fields(response)["ids"] == str(opened.pk)


def test_webhook_pages_link_the_pair(pair: SuspectedDuplicate) -> None:
    client = superuser_client("olga")
    for webhook in (pair.first, pair.webhook):
        content = page(client, admin_url(Webhook, "change", webhook.pk))
        assert admin_url(SuspectedDuplicate, "change", pair.pk) in content


def test_auditor_reads_without_buttons(pair: SuspectedDuplicate) -> None:
    client = staff_client("view_suspectedduplicate", "view_webhook", "view_payment")

    content = page(client, admin_url(SuspectedDuplicate, "change", pair.pk))

    assert "PAY-328" in content
    for kind in ("clear", "confirm"):
        assert f"action/{kind}/" not in content
        assert client.get(f"/admin/ingest/webhook/action/{kind}/?ids={pair.pk}").status_code == 403


def test_pairs_need_the_permission_to_view_webhooks(pair: SuspectedDuplicate) -> None:
    client = staff_client("view_suspectedduplicate")

    assert client.get(admin_url(SuspectedDuplicate, "changelist")).status_code == 403
    assert client.get(admin_url(SuspectedDuplicate, "change", pair.pk)).status_code == 403
