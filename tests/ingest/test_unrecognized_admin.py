"""What a person sees of unrecognized deliveries, and does about them."""

import json
from html import unescape
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.utils import timezone

from ingest import doorbell, inbox, unrecognized
from ingest.banks import tbank, vocabulary
from ingest.models import OperatorAction, UnrecognizedDelivery, Webhook
from monitoring.stats import HOUR
from tests.admin_client import admin_url, changelist_rows, hidden_fields, staff_client, superuser_client
from tests.ingest.banks.conftest import load_sample

pytestmark = pytest.mark.django_db
LIST = "/admin/ingest/unrecognizeddelivery/"
PROCESS, DISCARD = f"{LIST}action/process/", f"{LIST}action/discard/"
WHY = "the adapter knows it now"
Outcome = UnrecognizedDelivery.Outcome


@pytest.fixture
def admin_client() -> Client:
    return superuser_client()


@pytest.fixture(autouse=True)
def silent_bell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorbell, "ring", lambda: None)


def kept(number: int = 1, source: str = "tbank") -> UnrecognizedDelivery:
    own = {"operationId": str(number), "documentNumber": str(number), "typeOfOperation": "Zachislenie"}
    body = json.dumps(load_sample("tbank_transaction", **own)).encode()
    inbox.record_unrecognized(inbox.Delivery(body, source, "10.0.0.1"), body, f"unknown {number}")
    return UnrecognizedDelivery.objects.latest("id")


def said(answer: Any) -> str:
    assert answer.status_code == 200
    return unescape(answer.content.decode())


def states() -> list[str]:
    return list(UnrecognizedDelivery.objects.order_by("id").values_list("outcome", flat=True))


def test_the_body_is_shown_and_an_open_one_has_both_buttons(admin_client: Client) -> None:
    one = kept()

    content = said(admin_client.get(admin_url(UnrecognizedDelivery, "change", one.pk)))

    assert '"typeOfOperation": "Zachislenie"' in content
    assert "10.0.0.1" in content
    assert f"{PROCESS}?ids={one.pk}" in content
    assert f"{DISCARD}?ids={one.pk}" in content


def test_one_processed_again_becomes_a_webhook_and_the_page_says_so(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = kept(1), kept(2)
    monkeypatch.setattr(tbank, "INCOMING", vocabulary.fold_all(["Zachislenie"]))
    asked = admin_client.get(f"{PROCESS}?ids={one.pk}")
    assert "1 open delivery" in said(asked)

    content = said(admin_client.post(PROCESS, {**hidden_fields(asked), "reason": WHY}, follow=True))

    assert "1 of 1 delivery reached" in content
    assert "stored as a webhook" in content
    assert states() == [Outcome.STORED, Outcome.UNTRIED]
    action = OperatorAction.objects.get()
    assert (action.kind, action.by_name, action.reason) == ("process", "anna", WHY)
    closed = said(admin_client.get(admin_url(UnrecognizedDelivery, "change", one.pk)))
    assert admin_url(Webhook, "change", Webhook.objects.get().pk) in closed
    assert admin_url(OperatorAction, "change", action.pk) in closed
    assert PROCESS not in closed
    assert PROCESS in said(admin_client.get(admin_url(UnrecognizedDelivery, "change", other.pk)))


def test_the_selected_are_dismissed_for_a_reason(admin_client: Client) -> None:
    one, two = kept(1), kept(2)
    chosen = {"action": "dismiss_selected", "_selected_action": [one.pk, two.pk]}

    asked = admin_client.post(LIST, chosen)
    assert "2 open deliveries" in said(asked)
    assert "This field is required" in said(
        admin_client.post(DISCARD, {"ids": f"{one.pk} {two.pk}", "reason": " "})
    )
    assert states() == [Outcome.UNTRIED] * 2
    said(admin_client.post(DISCARD, {**hidden_fields(asked), "reason": WHY}, follow=True))

    assert states() == [Outcome.DISMISSED] * 2
    again = said(admin_client.post(DISCARD, {"ids": f"{one.pk}", "reason": WHY}, follow=True))
    assert "none of these deliveries is open" in again
    assert OperatorAction.objects.count() == 1


def test_all_that_match_are_meant_and_no_others(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(1), kept(2), kept(3, source="tochka")
    monkeypatch.setattr(unrecognized, "CHUNK_DELIVERIES", 1)
    ticked = {"action": "dismiss_selected", "select_across": "1", "_selected_action": ["1"]}

    asked = admin_client.post(f"{LIST}?source=tbank&state=open", ticked, follow=True)
    assert "2 open deliveries" in said(asked)
    address = asked.redirect_chain[-1][0]
    content = said(admin_client.post(address, {**hidden_fields(asked), "reason": WHY}, follow=True))

    assert "1 of 2 deliveries reached" in content
    assert UnrecognizedDelivery.objects.filter(last_action=None).get().source == "tochka"


def test_a_delivery_that_arrived_after_the_page_was_shown_is_asked_about_again(admin_client: Client) -> None:
    kept(1)
    address = f"{DISCARD}?all=1&state=open"
    asked = admin_client.get(address)
    kept(2)

    again = admin_client.post(address, {**hidden_fields(asked), "reason": WHY})

    assert "this has changed since the page was shown" in said(again)
    assert "2 open deliveries" in said(again)
    assert not OperatorAction.objects.exists()
    admin_client.post(address, {**hidden_fields(again), "reason": WHY})
    assert states() == [Outcome.DISMISSED] * 2


def test_a_delivery_processed_again_after_the_page_was_shown_is_asked_about_again(
    admin_client: Client,
) -> None:
    one = kept(1)
    asked = admin_client.get(f"{DISCARD}?ids={one.pk}")
    admin_client.post(PROCESS, {**hidden_fields(admin_client.get(f"{PROCESS}?ids={one.pk}")), "reason": WHY})
    assert states() == [Outcome.TRIED]

    admin_client.post(DISCARD, {**hidden_fields(asked), "reason": WHY})

    assert states() == [Outcome.TRIED]


def test_the_list_filters_by_state_age_and_source_and_finds_reasons(admin_client: Client) -> None:
    kept(1), kept(2, source="tochka"), kept(3)
    UnrecognizedDelivery.objects.filter(reason="unknown 3").update(
        outcome=Outcome.DISMISSED, received_at=timezone.now() - 240 * HOUR
    )

    assert changelist_rows(admin_client, UnrecognizedDelivery) == ["unknown 3", "unknown 2", "unknown 1"]
    assert changelist_rows(admin_client, UnrecognizedDelivery, state="open") == ["unknown 2", "unknown 1"]
    assert changelist_rows(admin_client, UnrecognizedDelivery, state="dismissed") == ["unknown 3"]
    assert changelist_rows(admin_client, UnrecognizedDelivery, source="tochka") == ["unknown 2"]
    assert changelist_rows(admin_client, UnrecognizedDelivery, received="day") == ["unknown 2", "unknown 1"]
    assert changelist_rows(admin_client, UnrecognizedDelivery, received="earlier") == ["unknown 3"]
    assert changelist_rows(admin_client, UnrecognizedDelivery, q="known 1") == ["unknown 1"]
    assert len(changelist_rows(admin_client, UnrecognizedDelivery, q="10.0.0.1")) == 3


@pytest.mark.parametrize("query", ["state=opn", "received=year"])
def test_a_filter_that_does_not_exist_means_nothing(admin_client: Client, query: str) -> None:
    kept()

    assert admin_client.get(f"{LIST}?{query}").status_code == 302
    assert admin_client.post(f"{DISCARD}?all=1&{query}", {"reason": WHY}).status_code == 404
    assert states() == [Outcome.UNTRIED]


@pytest.mark.parametrize("kind", ["replay", "dismiss", "nonsense"])
def test_another_kind_of_act_is_not_there(admin_client: Client, kind: str) -> None:
    assert admin_client.get(f"{LIST}action/{kind}/?ids={kept().pk}").status_code == 404
    assert admin_client.get("/admin/ingest/webhook/action/process/?ids=1").status_code == 404


@pytest.mark.parametrize(
    ("permissions", "processing", "dismissing"),
    [
        (["view_unrecognizeddelivery"], 403, 403),
        (["view_unrecognizeddelivery", "process_unrecognized"], 200, 403),
        (["view_unrecognizeddelivery", "dismiss_unrecognized"], 403, 200),
        (["process_unrecognized", "dismiss_unrecognized", "replay_webhook", "view_webhook"], 403, 403),
    ],
)
def test_each_act_needs_its_permission(permissions: list[str], processing: int, dismissing: int) -> None:
    olga, one = staff_client(*permissions), kept()

    assert olga.get(f"{PROCESS}?ids={one.pk}").status_code == processing
    assert olga.get(f"{DISCARD}?ids={one.pk}").status_code == dismissing
    if processing == 403:
        assert olga.post(PROCESS, {"ids": str(one.pk), "reason": WHY}).status_code == 403
        assert states() == [Outcome.UNTRIED]


def test_who_may_not_see_the_deliveries_sees_none_on_the_page_of_an_act(admin_client: Client) -> None:
    one = kept()
    admin_client.post(DISCARD, {**hidden_fields(admin_client.get(f"{DISCARD}?ids={one.pk}")), "reason": WHY})
    action = admin_url(OperatorAction, "change", OperatorAction.objects.get().pk)

    assert "unknown 1" in said(admin_client.get(action))
    assert "unknown 1" not in said(staff_client("view_webhook").get(action))


def test_operators_see_and_act_and_auditors_see() -> None:
    for group, may_process in (("Operators", True), ("Auditors", False)):
        person = User.objects.create_user(group, is_staff=True)
        person.groups.add(Group.objects.get(name=group))
        assert person.has_perm("ingest.view_unrecognizeddelivery")
        assert person.has_perm("ingest.process_unrecognized") is may_process
        assert person.has_perm("ingest.dismiss_unrecognized") is may_process
