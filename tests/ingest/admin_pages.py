"""Actions on the webhook pages of the admin, for the tests of these pages."""

import re
from html import unescape

from django.db.models import Model
from django.http import HttpResponse
from django.test import Client

from ingest.models import ConflictingDelivery, OperatorAction, Webhook
from tests.admin_client import admin_url, hidden_fields
from tests.factories import make_webhook, payment_body, terms

FAILED, RECEIVED = Webhook.Status.FAILED, Webhook.Status.RECEIVED
APPLIED, DISMISSED = Webhook.Status.APPLIED, Webhook.Status.DISMISSED
REPLAY = "/admin/ingest/webhook/action/replay/"
DISMISS = "/admin/ingest/webhook/action/dismiss/"
RESOLVE = "/admin/ingest/webhook/action/resolve/"
REASON = "the bug is repaired"


def failed(**fields: object) -> Webhook:
    return make_webhook(status=FAILED, attempts=5, **{"last_error": "it broke", **fields})


def conflicting_with(webhook: Webhook, **changed: object) -> ConflictingDelivery:
    content = payment_body(terms(1, operation_id=webhook.operation_id), **changed)
    return ConflictingDelivery.objects.create(webhook=webhook, difference="amount_kopecks", body=content)


def page_of(client: Client, row: Model) -> str:
    response = client.get(admin_url(type(row), "change", row.pk))
    assert response.status_code == 200
    return response.content.decode()


def select(client: Client, *webhooks: Webhook, **more: str) -> HttpResponse:
    """Select these webhooks in the list and choose Replay."""
    form = {"action": "replay_selected", "_selected_action": [webhook.pk for webhook in webhooks]}
    return client.post(admin_url(Webhook, "changelist"), {**form, "index": "0", **more}, follow=True)


def confirm(client: Client, page: HttpResponse, reason: str = REASON) -> list[str]:
    """Submit a confirmation page with a reason; return the outcomes on the action's page."""
    content = page.content.decode()
    form = re.search(r'<form method="post" action="([^"]*)" class="confirmation">', content)
    assert form, "the page has no button"
    response = client.post(unescape(form[1]), {**hidden_fields(page), "reason": reason}, follow=True)
    assert response.status_code == 200
    return [f"{count} {name}" for count, name in response.context.get("outcomes", [])]


def assert_asks_again(client: Client, page: HttpResponse) -> HttpResponse:
    """Submit a stale confirmation page; nothing is done, and the page is shown again."""
    before, url = statuses(), page.request["PATH_INFO"] + "?" + page.request["QUERY_STRING"]
    response = client.post(url, {**hidden_fields(page), "reason": REASON})
    assert "Nothing was done" in message_text(response)
    assert REASON in response.content.decode()  # the reason is kept
    assert (statuses(), OperatorAction.objects.count()) == (before, 0)
    return response


def message_text(response: HttpResponse) -> str:
    return " ".join(map(str, response.context["messages"]))


def statuses() -> list[str]:
    return list(Webhook.objects.order_by("id").values_list("status", flat=True))
