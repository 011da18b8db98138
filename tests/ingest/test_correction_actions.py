"""Operators correct posted payments: reverse, replace by a conflicting delivery, assign from suspense."""

import json
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import transaction
from django.test import Client

from ingest import inbox, operator_actions
from ingest.exceptions import StaleConfirmation
from ingest.models import ConflictingDelivery, OperatorAction, OperatorActionItem, Webhook
from ingest.reconciliation import reconcile
from ledger import corrections
from ledger.models import Payment
from ledger.posting import replace, try_lock
from ledger.verification import verify
from tests.admin_client import admin_url, superuser_client
from tests.factories import ROMASHKA, SUSPENSE, VASILEK, balances, make_webhook, post_payments, terms
from tests.ingest.banks.conftest import load_sample
from tests.markers import every_database, sqlite_run_only
from tests.payloads import payment_body
from worker.applying import apply_batch

pytestmark = [pytest.mark.django_db(transaction=True), sqlite_run_only]
Kind = OperatorAction.Kind


def posted(kopecks: int = 100_00, *, inn: str = ROMASHKA) -> Webhook:
    webhook = make_webhook(terms(kopecks, inn=inn))
    apply_batch(10)
    webhook.refresh_from_db()
    assert webhook.status == "applied"
    return webhook


def conflicting(webhook: Webhook, amount: str, inn: str = ROMASHKA) -> None:
    body = payment_body(webhook.terms, amount=amount, payer_inn=inn)
    ConflictingDelivery.objects.create(webhook=webhook, difference="amount_kopecks", body=body)


def run(kind: Kind, webhook: Webhook, inn: str = "") -> str:
    """Carry out an action of the first user; return the outcome."""
    by = User.objects.get_or_create(username="anna")[0]
    action = OperatorAction(kind=kind, by=by, by_name="anna", inn=inn)
    operator_actions.create_for_ids(action, [webhook.pk], "a mistake")
    while operator_actions.run_chunk(action.pk):
        pass
    return OperatorActionItem.objects.get(action=action).outcome


def assert_ledger_is_right() -> None:
    assert not [*verify(), *reconcile()]


def test_reversal_takes_the_payment_back_once() -> None:
    webhook = posted()

    assert [run(Kind.REVERSE, webhook), run(Kind.REVERSE, webhook)] == ["done", "refused"]

    assert balances() == {ROMASHKA: 0}
    assert_ledger_is_right()


@every_database
def test_replacement_posts_the_newest_conflict_and_resolves_all() -> None:
    webhook = posted(100_00)
    conflicting(webhook, "95.00")
    conflicting(webhook, "90.00", VASILEK)

    assert run(Kind.REPLACE, webhook) == "done"

    assert balances() == {ROMASHKA: 0, VASILEK: 90_00}
    assert not ConflictingDelivery.objects.filter(resolved_by=None).exists()
    assert_ledger_is_right()


def test_replacement_without_an_action_after_a_reversal_is_drift() -> None:
    webhook = posted()
    run(Kind.REVERSE, webhook)
    payment = Payment.objects.get(operation_id=webhook.operation_id)
    with transaction.atomic():
        replace(payment, webhook.terms, try_lock({ROMASHKA}))

    [drift] = reconcile()

    assert (drift.what, drift.found) == ("correction", "1 replacements, 1 reversals")


@pytest.mark.parametrize(
    ("source", "body"), [("bank", b"{}"), ("tbank", json.dumps(load_sample("tbank_debit")).encode())]
)
def test_replacement_without_a_payment_in_the_conflict_is_refused(source: str, body: bytes) -> None:
    webhook = posted(100_00)
    ConflictingDelivery.objects.create(webhook=webhook, difference="amount_kopecks", source=source, body=body)

    assert run(Kind.REPLACE, webhook) == "refused"

    assert balances() == {ROMASHKA: 100_00}
    assert ConflictingDelivery.objects.filter(resolved_by=None).exists()  # an operator still has to decide
    page = superuser_client("olga").get(admin_url(Webhook, "change", webhook.pk)).content.decode()
    assert "Conflicting delivery" in page
    assert " ≠</td>" not in page  # there is nothing to compare


@every_database
def test_reversed_payment_is_restored_once() -> None:
    webhook = posted()
    assert run(Kind.RESTORE, webhook) == "refused"

    outcomes = [run(kind, webhook) for kind in (Kind.REVERSE, Kind.RESTORE, Kind.RESTORE)]

    assert outcomes == ["done", "done", "refused"]
    assert balances() == {ROMASHKA: 100_00}
    assert_ledger_is_right()


def test_reversed_money_in_suspense_can_not_be_moved() -> None:
    webhook = suspended()
    run(Kind.REVERSE, webhook)

    assert run(Kind.ASSIGN, webhook, VASILEK) == "refused"
    assert run(Kind.UNASSIGN, webhook) == "refused"

    assert balances()[SUSPENSE] == 0


@every_database
def test_correction_confirmed_before_another_one_is_refused() -> None:
    """The first action is created, the second one runs, and only then the first."""
    webhook = posted(100_00)
    conflicting(webhook, "90.00")
    by = User.objects.create(username="olga")
    early = operator_actions.create(Kind.REVERSE, [webhook.pk], by, "taken back by the bank")
    assert run(Kind.REPLACE, webhook) == "done"

    operator_actions.run_chunk(early.pk)

    assert OperatorActionItem.objects.get(action=early).outcome == "refused"
    assert balances() == {ROMASHKA: 90_00}


@every_database
def test_confirmation_is_stale_after_a_correction_that_no_operator_made() -> None:
    webhook, by = posted(100_00), User.objects.create(username="olga")
    confirmed = operator_actions.state_digest(Kind.REVERSE, Webhook.objects.filter(pk=webhook.pk))
    corrections.correct(webhook.operation_id, corrections.replacement(terms(90_00)))

    with pytest.raises(StaleConfirmation):
        operator_actions.create(Kind.REVERSE, [webhook.pk], by, "a mistake", confirmed=confirmed)


@every_database
def test_unknown_or_unposted_webhook_does_not_block_the_others() -> None:
    webhook, by = posted(), User.objects.create(username="olga")
    failed = make_webhook(terms(), status=Webhook.Status.FAILED)
    post_payments(terms(1_00, operation_id=failed.operation_id))  # by something else: a conflict
    action = operator_actions.create(Kind.REVERSE, [webhook.pk, failed.pk, 10**15], by, "a mistake")

    while operator_actions.run_chunk(action.pk):
        pass

    outcomes = OperatorActionItem.objects.filter(action=action).order_by("webhook_id")
    assert list(outcomes.values_list("outcome", flat=True)) == ["done", "refused", "refused"]


@every_database
def test_assignment_and_its_return() -> None:
    webhook = suspended()

    outcomes = [run(Kind.ASSIGN, webhook, VASILEK), run(Kind.ASSIGN, webhook, ROMASHKA)]
    assert outcomes == ["done", "refused"]
    assert balances()[VASILEK] == 100_00
    assert run(Kind.UNASSIGN, webhook) == "done"

    assert balances() | {ROMASHKA: 0} == {SUSPENSE: 100_00, VASILEK: 0, ROMASHKA: 0}
    assert not list(verify())


def suspended() -> Webhook:
    payment = terms(inn=SUSPENSE)
    inbox.store(payment, inbox.Delivery(b""))
    apply_batch(10)
    return Webhook.objects.get(operation_id=payment.operation_id)


def test_confirmation_shows_the_balances_and_submits() -> None:
    client, webhook = superuser_client(), posted(100_00)
    page = client.get(f"/admin/ingest/webhook/action/reverse/?ids={webhook.pk}").content.decode()
    assert "100,00\N{NO-BREAK SPACE}₽" in page
    assert "0,00\N{NO-BREAK SPACE}₽" in page

    submit(client, "reverse", webhook, page)

    assert balances() == {ROMASHKA: 0}


@every_database
def test_assignment_is_previewed_before_it_is_submitted() -> None:
    client, webhook = superuser_client(), suspended()
    page = client.get(f"/admin/ingest/webhook/action/assign/?ids={webhook.pk}").content.decode()

    preview = submit(client, "assign", webhook, page, inn=VASILEK, previewed_inn="")
    assert balances() == {SUSPENSE: 100_00}
    assert VASILEK in preview
    submit(client, "assign", webhook, preview, inn=VASILEK, previewed_inn=VASILEK)

    assert balances() == {SUSPENSE: 0, VASILEK: 100_00}
    assert OperatorAction.objects.get().inn == VASILEK


def submit(client: Client, kind: str, webhook: Webhook, page: str, **fields: Any) -> str:
    digest = page.split('name="digest" value="')[1].split('"', maxsplit=1)[0]
    data = {"ids": str(webhook.pk), "reason": "a mistake", "digest": digest, **fields}
    response = client.post(f"/admin/ingest/webhook/action/{kind}/", data, follow=True)
    assert response.status_code == 200
    return response.content.decode()


@pytest.mark.parametrize("kind", ["reverse", "replace", "assign", "unassign"])
def test_auditor_may_not_correct(kind: str) -> None:
    webhook = posted()
    client = Client()
    user = User.objects.create_user("vera", is_staff=True)
    user.user_permissions.add(*permissions("view_webhook", "replay_webhook", "resolve_conflict"))
    client.force_login(user)

    url = f"/admin/ingest/webhook/action/{kind}/"
    assert client.get(url, {"ids": webhook.pk}).status_code == 403
    assert client.post(url, {"ids": webhook.pk, "reason": "x"}).status_code == 403
    assert (
        "Reverse the payment"
        not in client.get(f"/admin/ingest/webhook/{webhook.pk}/change/").content.decode()
    )


def permissions(*names: str) -> Any:
    return Permission.objects.filter(codename__in=names)
