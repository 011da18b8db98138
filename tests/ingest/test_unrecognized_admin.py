"""The admin pages of unrecognized deliveries and their operator actions."""

import json
from html import unescape
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.utils import timezone

from ingest import inbox, unrecognized
from ingest.banks import tbank, vocabulary
from ingest.models import OperatorAction, UnrecognizedDelivery, Webhook
from monitoring.stats import HOUR
from tests.admin_client import admin_url, changelist_rows, hidden_fields, staff_client, superuser_client
from tests.ingest.banks.conftest import load_sample
from tests.markers import every_database, sqlite_run_only

pytestmark = [pytest.mark.django_db, sqlite_run_only]
LIST = "/admin/ingest/unrecognizeddelivery/"
PROCESS, DISCARD = f"{LIST}action/process/", f"{LIST}action/discard/"
REASON = "the adapter knows it now"
Outcome = UnrecognizedDelivery.Outcome


@pytest.fixture
def admin_client() -> Client:
    return superuser_client()


def make_delivery(number: int = 1, source: str = "tbank") -> UnrecognizedDelivery:
    own = {"operationId": str(number), "documentNumber": str(number), "typeOfOperation": "Zachislenie"}
    body = json.dumps(load_sample("tbank_transaction", **own)).encode()
    inbox.record_unrecognized(inbox.Delivery(body, source, "10.0.0.1"), body, f"unknown {number}")
    return UnrecognizedDelivery.objects.latest("id")


def content_of(response: Any) -> str:
    assert response.status_code == 200
    return unescape(response.content.decode())


def states() -> list[str]:
    return list(UnrecognizedDelivery.objects.order_by("id").values_list("outcome", flat=True))


def test_open_delivery_page_shows_body_and_both_buttons(admin_client: Client) -> None:
    delivery = make_delivery()

    content = content_of(admin_client.get(admin_url(UnrecognizedDelivery, "change", delivery.pk)))

    assert '"typeOfOperation": "Zachislenie"' in content
    assert "10.0.0.1" in content
    assert f"{PROCESS}?ids={delivery.pk}" in content
    assert f"{DISCARD}?ids={delivery.pk}" in content


@every_database
def test_processed_delivery_page_links_webhook_and_action(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery, other = make_delivery(1), make_delivery(2)
    monkeypatch.setattr(tbank, "INCOMING", vocabulary.fold_all(["Zachislenie"]))
    page = admin_client.get(f"{PROCESS}?ids={delivery.pk}")
    assert "1 open delivery" in content_of(page)

    content = content_of(admin_client.post(PROCESS, {**hidden_fields(page), "reason": REASON}, follow=True))

    assert "1 of 1 delivery processed" in content
    assert "stored as a webhook" in content
    assert states() == [Outcome.STORED, Outcome.UNTRIED]
    action = OperatorAction.objects.get()
    assert (action.kind, action.by_name, action.reason) == ("process", "anna", REASON)
    closed = content_of(admin_client.get(admin_url(UnrecognizedDelivery, "change", delivery.pk)))
    assert admin_url(Webhook, "change", Webhook.objects.get().pk) in closed
    assert admin_url(OperatorAction, "change", action.pk) in closed
    assert PROCESS not in closed
    assert PROCESS in content_of(admin_client.get(admin_url(UnrecognizedDelivery, "change", other.pk)))


@every_database
def test_selected_deliveries_are_dismissed_with_a_reason(admin_client: Client) -> None:
    delivery, other = make_delivery(1), make_delivery(2)
    form = {"action": "dismiss_selected", "_selected_action": [delivery.pk, other.pk]}

    page = admin_client.post(LIST, form)
    assert "2 open deliveries" in content_of(page)
    assert "This field is required" in content_of(
        admin_client.post(DISCARD, {"ids": f"{delivery.pk} {other.pk}", "reason": " "})
    )
    assert states() == [Outcome.UNTRIED] * 2
    content_of(admin_client.post(DISCARD, {**hidden_fields(page), "reason": REASON}, follow=True))

    assert states() == [Outcome.DISMISSED] * 2
    again = content_of(admin_client.post(DISCARD, {"ids": f"{delivery.pk}", "reason": REASON}, follow=True))
    assert "none of these deliveries is open" in again
    assert OperatorAction.objects.count() == 1


@every_database
def test_action_on_all_affects_only_matching_deliveries(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_delivery(1), make_delivery(2), make_delivery(3, source="tochka")
    monkeypatch.setattr(unrecognized, "CHUNK_DELIVERIES", 1)
    form = {"action": "dismiss_selected", "select_across": "1", "_selected_action": ["1"]}

    page = admin_client.post(f"{LIST}?source=tbank&state=open", form, follow=True)
    assert "2 open deliveries" in content_of(page)
    url = page.redirect_chain[-1][0]
    content = content_of(admin_client.post(url, {**hidden_fields(page), "reason": REASON}, follow=True))

    assert "1 of 2 deliveries processed" in content
    assert UnrecognizedDelivery.objects.filter(last_action=None).get().source == "tochka"


@every_database
def test_delivery_received_after_confirmation_page_asks_again(admin_client: Client) -> None:
    make_delivery(1)
    url = f"{DISCARD}?all=1&state=open"
    page = admin_client.get(url)
    make_delivery(2)

    again = admin_client.post(url, {**hidden_fields(page), "reason": REASON})

    assert "the data changed after this page was shown" in content_of(again)
    assert "2 open deliveries" in content_of(again)
    assert not OperatorAction.objects.exists()
    admin_client.post(url, {**hidden_fields(again), "reason": REASON})
    assert states() == [Outcome.DISMISSED] * 2


@every_database
def test_delivery_processed_after_confirmation_page_asks_again(
    admin_client: Client,
) -> None:
    delivery = make_delivery(1)
    page = admin_client.get(f"{DISCARD}?ids={delivery.pk}")
    admin_client.post(
        PROCESS, {**hidden_fields(admin_client.get(f"{PROCESS}?ids={delivery.pk}")), "reason": REASON}
    )
    assert states() == [Outcome.TRIED]

    admin_client.post(DISCARD, {**hidden_fields(page), "reason": REASON})

    assert states() == [Outcome.TRIED]


@every_database
def test_list_filters_by_state_age_and_source_and_searches_reasons(admin_client: Client) -> None:
    make_delivery(1), make_delivery(2, source="tochka"), make_delivery(3)
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


@every_database
@pytest.mark.parametrize("query", ["state=opn", "received=year"])
def test_invalid_filter_selects_nothing(admin_client: Client, query: str) -> None:
    make_delivery()

    assert admin_client.get(f"{LIST}?{query}").status_code == 302
    assert admin_client.post(f"{DISCARD}?all=1&{query}", {"reason": REASON}).status_code == 404
    assert states() == [Outcome.UNTRIED]


@pytest.mark.parametrize("kind", ["replay", "dismiss", "nonsense"])
def test_action_of_other_model_is_not_found(admin_client: Client, kind: str) -> None:
    assert admin_client.get(f"{LIST}action/{kind}/?ids={make_delivery().pk}").status_code == 404
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
def test_each_action_needs_its_permission(permissions: list[str], processing: int, dismissing: int) -> None:
    olga, delivery = staff_client(*permissions), make_delivery()

    assert olga.get(f"{PROCESS}?ids={delivery.pk}").status_code == processing
    assert olga.get(f"{DISCARD}?ids={delivery.pk}").status_code == dismissing
    if processing == 403:
        assert olga.post(PROCESS, {"ids": str(delivery.pk), "reason": REASON}).status_code == 403
        assert states() == [Outcome.UNTRIED]


def test_action_page_hides_deliveries_without_view_permission(admin_client: Client) -> None:
    delivery = make_delivery()
    admin_client.post(
        DISCARD, {**hidden_fields(admin_client.get(f"{DISCARD}?ids={delivery.pk}")), "reason": REASON}
    )
    action = admin_url(OperatorAction, "change", OperatorAction.objects.get().pk)

    assert "unknown 1" in content_of(admin_client.get(action))
    assert "unknown 1" not in content_of(staff_client("view_webhook").get(action))


def test_operators_can_act_and_auditors_can_view() -> None:
    for group, may_process in (("Operators", True), ("Auditors", False)):
        user = User.objects.create_user(group, is_staff=True)
        user.groups.add(Group.objects.get(name=group))
        assert user.has_perm("ingest.view_unrecognizeddelivery")
        assert user.has_perm("ingest.process_unrecognized") is may_process
        assert user.has_perm("ingest.dismiss_unrecognized") is may_process
