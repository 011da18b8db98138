import re

import pytest
from django.contrib.auth.models import User
from django.db.models import Model
from django.test import Client
from django.urls import reverse

from ingest import operator_actions
from ingest.admin import action_views
from ingest.models import (
    ConflictingDelivery,
    OperatorAction,
    SuspectedDuplicate,
    Webhook,
)
from tests.admin_client import admin_url, changelist_rows, hidden_fields, staff_client, superuser_client
from tests.factories import make_webhook
from tests.ingest.admin_pages import (
    APPLIED,
    DISMISS,
    DISMISSED,
    FAILED,
    REASON,
    RECEIVED,
    REPLAY,
    RESOLVE,
    assert_asks_again,
    confirm,
    conflicting_with,
    failed,
    message_text,
    page_of,
    select,
    statuses,
)
from tests.markers import every_database, sqlite_run_only

pytestmark = [pytest.mark.django_db, sqlite_run_only]


@pytest.fixture
def admin_client() -> Client:
    return superuser_client()


@every_database
def test_selected_webhooks_are_replayed_after_confirmation(admin_client: Client) -> None:
    one, other, done, dismissed = (
        failed(),
        failed(),
        make_webhook(status=APPLIED),
        make_webhook(status=DISMISSED),
    )

    page = select(admin_client, one, other, done, dismissed)

    assert statuses() == [FAILED, FAILED, APPLIED, DISMISSED]  # the page changes nothing
    content = page.content.decode()
    assert "<strong>2 failed webhooks</strong>" in content
    assert "1 already applied" in content
    assert "1 already dismissed" in content
    assert str(one) in content
    assert str(done) not in content
    assert confirm(admin_client, page) == ["2 done", "1 already applied", "1 already dismissed"]
    assert statuses() == [RECEIVED, RECEIVED, APPLIED, DISMISSED]


def test_confirmation_lists_only_the_first_webhooks(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(action_views, "SHOWN_MAX", 2)
    webhooks = [failed() for _ in range(3)]

    content = select(admin_client, *webhooks).content.decode()

    assert [str(webhook) in content for webhook in webhooks] == [True, True, False]
    assert "Only the first 2 are shown." in content


def test_confirmation_without_failed_webhooks_has_no_button(admin_client: Client) -> None:
    content = select(admin_client, make_webhook(status=APPLIED)).content.decode()

    assert "Nothing to do" in content
    assert "Replay 0" not in content


@every_database
def test_all_webhooks_matching_a_filter_are_replayed(admin_client: Client) -> None:
    webhooks = [failed() for _ in range(105)]  # more than one page
    make_webhook()
    form = {"action": "replay_selected", "_selected_action": webhooks[0].pk, "select_across": "1"}

    url = admin_url(Webhook, "changelist") + "?status__exact=failed"
    page = admin_client.post(url, {**form, "index": "0"}, follow=True)

    assert confirm(admin_client, page) == ["105 done"]


@pytest.mark.parametrize(
    "url",
    [f"{DISMISS}?status__exact=failed&all=1", f"{DISMISS}?status__exact=failed&error_fingerprint=&all=1"],
    ids=["all that match", "all of one cause"],
)
def test_webhook_failed_after_confirmation_page_asks_again(admin_client: Client, url: str) -> None:
    failed()
    page = admin_client.get(url)
    for _ in range(3):
        failed()

    second_page = assert_asks_again(admin_client, page)

    assert "<strong>4 failed webhooks</strong>" in second_page.content.decode()
    assert confirm(admin_client, second_page) == ["4 done"]


@pytest.mark.parametrize("query", ["ids={id}", "status__exact=failed&all=1"])
def test_webhook_replayed_and_failed_again_after_the_page_asks_again(
    admin_client: Client, query: str
) -> None:
    webhook = failed()
    page = admin_client.get(f"{DISMISS}?{query.format(id=webhook.pk)}")
    replayed = operator_actions.create(OperatorAction.Kind.REPLAY, [webhook.pk], User.objects.get(), REASON)
    operator_actions.run_chunk(replayed.pk)
    Webhook.objects.update(status=FAILED, last_error="another error")

    response = admin_client.post(
        page.request["PATH_INFO"] + f"?{query.format(id=webhook.pk)}",
        {**hidden_fields(page), "reason": REASON},
    )

    assert "Nothing was done" in message_text(response)
    assert "another error" in response.content.decode()
    assert statuses() == [FAILED]
    assert confirm(admin_client, response) == ["1 done"]


def test_other_webhooks_in_equal_number_ask_again(
    admin_client: Client,
) -> None:
    webhook = failed()
    page = admin_client.get(f"{REPLAY}?status__exact=failed&all=1")
    Webhook.objects.filter(pk=webhook.pk).update(status=APPLIED)
    failed()

    assert_asks_again(admin_client, page)


def test_conflict_received_after_confirmation_page_asks_again(admin_client: Client) -> None:
    webhook = make_webhook()
    conflicting_with(webhook)
    page = admin_client.get(RESOLVE, {"ids": webhook.pk})
    conflicting_with(webhook)

    second_page = assert_asks_again(admin_client, page)

    assert confirm(admin_client, second_page) == ["1 done"]
    assert not ConflictingDelivery.objects.filter(resolved_by=None).exists()


def test_too_many_selected_are_refused(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(action_views, "SELECTED_MAX", 2)

    response = select(admin_client, failed(), failed(), failed())

    assert message_text(response) == "More than 2 selected. Use the list’s “Select all” link instead."


def test_failed_webhook_page_has_replay_button(admin_client: Client) -> None:
    webhook = failed()

    link = re.search(rf'href="({REPLAY}[^"]*)">Replay', page_of(admin_client, webhook))
    assert link
    assert confirm(admin_client, admin_client.get(link[1])) == ["1 done"]

    assert f'href="{REPLAY}' not in page_of(admin_client, webhook)  # it is pending again


@every_database
def test_second_of_two_admins_sees_webhook_already_queued(admin_client: Client) -> None:
    webhook = failed()
    boris = superuser_client("boris")
    page, other_page = select(admin_client, webhook), select(boris, webhook)

    assert confirm(admin_client, page) == ["1 done"]
    assert confirm(boris, other_page) == ["1 already queued"]


def test_webhook_page_shows_who_replayed_and_why(admin_client: Client) -> None:
    webhook = failed()
    confirm(admin_client, select(admin_client, webhook))

    assert re.search(rf"Replay: done.*anna — {REASON}", page_of(admin_client, webhook), re.DOTALL)


def test_user_with_view_permission_cannot_replay() -> None:
    auditor = staff_client("view_webhook")
    webhook = failed()

    assert "replay_selected" not in auditor.get(admin_url(Webhook, "changelist")).content.decode()
    assert REPLAY not in page_of(auditor, webhook)
    select(auditor, webhook)
    assert auditor.get(REPLAY, {"ids": webhook.pk}).status_code == 403
    for url in [REPLAY, DISMISS, RESOLVE, f"{REPLAY}?all=1", f"{DISMISS}?all=1", f"{RESOLVE}?all=1"]:
        assert auditor.post(url, {"ids": webhook.pk, "reason": REASON}).status_code == 403

    assert statuses() == [FAILED]
    assert not OperatorAction.objects.exists()


@pytest.mark.parametrize(
    ("permission", "url"),
    [("replay_webhook", REPLAY), ("dismiss_webhook", DISMISS), ("resolve_conflict", RESOLVE)],
)
def test_each_action_needs_its_own_permission(permission: str, url: str) -> None:
    operator = staff_client("view_webhook", permission)
    webhook = failed()
    conflicting_with(webhook)

    for other in {REPLAY, DISMISS, RESOLVE} - {url}:
        assert operator.post(other, {"ids": webhook.pk, "reason": REASON}).status_code == 403
    assert confirm(operator, operator.get(url, {"ids": webhook.pk})) == ["1 done"]


def test_anonymous_user_is_redirected_to_login() -> None:
    response = Client().post(REPLAY, {"ids": failed().pk, "reason": REASON})

    assert response.headers["Location"].startswith(reverse("admin:login"))
    assert statuses() == [FAILED]


def test_replay_without_csrf_token_is_refused() -> None:
    client = superuser_client()
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = client.cookies

    assert strict.post(REPLAY, {"ids": failed().pk, "reason": REASON}).status_code == 403
    assert statuses() == [FAILED]


@pytest.mark.parametrize("ids", ["", "x", "1 OR 1=1", "9" * 30, "²", "-1"])
def test_malformed_ids_replay_nothing(admin_client: Client, ids: str) -> None:
    failed(id=77)

    assert admin_client.get(REPLAY, {"ids": ids}).status_code == 200
    admin_client.post(REPLAY, {"ids": ids, "reason": REASON})

    assert statuses() == [FAILED]


@pytest.mark.parametrize("reason", ["", "   ", "x" * 501])
def test_invalid_reason_asks_again(admin_client: Client, reason: str) -> None:
    webhook = failed()

    assert confirm(admin_client, select(admin_client, webhook), reason=reason) == []

    assert statuses() == [FAILED]
    assert not OperatorAction.objects.exists()


def test_unknown_action_is_not_found(admin_client: Client) -> None:
    assert admin_client.get("/admin/ingest/webhook/action/burn/").status_code == 404


@pytest.mark.parametrize("query", ["received=yesterday", "typo=1", "nothing__isnull=1"])
def test_invalid_filter_never_selects_all(admin_client: Client, query: str) -> None:
    failed()

    assert admin_client.get(f"{REPLAY}?all=1&{query}").status_code == 404
    assert admin_client.post(f"{REPLAY}?all=1&{query}", {"reason": REASON}).status_code == 404

    assert statuses() == [FAILED]


def test_dismissed_webhook_page_shows_who_dismissed_and_no_button(admin_client: Client) -> None:
    webhook = failed()
    assert confirm(admin_client, admin_client.get(DISMISS, {"ids": webhook.pk})) == ["1 done"]

    content = page_of(admin_client, webhook)

    assert statuses() == [DISMISSED]
    assert re.search(rf"Dismissal: done.*anna — {REASON}", content, re.DOTALL)
    assert REPLAY not in content
    assert DISMISS not in content


@pytest.mark.parametrize(
    ("model", "kinds"),
    [
        (Webhook, {"reverse", "replay", "dismiss", "resolve"}),
        (ConflictingDelivery, {"resolve", "replace"}),
        (SuspectedDuplicate, {"clear", "confirm"}),
    ],
)
def test_every_action_of_a_list_asks_about_the_selected_rows(
    admin_client: Client, model: type[Model], kinds: set[str]
) -> None:
    first, webhook = make_webhook(), make_webhook()
    conflict = conflicting_with(webhook)
    SuspectedDuplicate.objects.create(webhook=webhook, first=first)
    url = admin_url(model, "changelist")
    row = conflict.pk if model is ConflictingDelivery else webhook.pk

    offered = re.findall(r'<option value="(\w+)_selected"', admin_client.get(url).content.decode())
    assert set(offered) == kinds
    for kind in kinds:
        form = {"action": f"{kind}_selected", "_selected_action": row, "index": "0"}
        page = admin_client.post(url, form, follow=True)
        assert (page.context["kind"], page.context["ids"]) == (kind, str(webhook.pk))


@every_database
def test_conflicts_are_resolved_from_their_list(admin_client: Client) -> None:
    webhook = make_webhook()
    conflict = conflicting_with(webhook)
    assert f"{RESOLVE}?ids={webhook.pk}" in page_of(admin_client, webhook)
    form = {"action": "resolve_selected", "_selected_action": conflict.pk, "index": "0"}

    page = admin_client.post(admin_url(ConflictingDelivery, "changelist"), form, follow=True)

    assert confirm(admin_client, page) == ["1 done"]
    assert changelist_rows(admin_client, ConflictingDelivery, resolved_by__isempty="1") == []
    assert "resolved by anna" in page_of(admin_client, webhook)
    assert RESOLVE not in page_of(admin_client, webhook)


@every_database
def test_large_action_runs_in_background_and_its_page_refreshes(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator_actions, "CHUNK_WEBHOOKS", 2)
    webhooks = [failed() for _ in range(5)]

    assert confirm(admin_client, select(admin_client, *webhooks)) == ["3 pending", "2 done"]

    action = OperatorAction.objects.get()
    assert "2 of 5 webhooks processed" in page_of(admin_client, action)
    assert 'http-equiv="refresh"' in page_of(admin_client, action)
    while operator_actions.run_chunk(action.pk):
        pass
    Webhook.objects.update(status=APPLIED)
    Webhook.objects.filter(pk=webhooks[0].pk).update(status=FAILED, last_error="it broke again")
    content = page_of(admin_client, action)
    assert 'http-equiv="refresh"' not in content
    assert "5 of 5 webhooks processed" in content
    assert re.search(r"<strong>1</strong>\s*<span[^>]*>failed again", content)
    assert "it broke again" in content


@pytest.mark.parametrize("method", ["add", "change", "delete"])
def test_superuser_cannot_change_the_audit_trail(admin_client: Client, method: str) -> None:
    confirm(admin_client, select(admin_client, failed()))
    action = OperatorAction.objects.get()

    url = admin_url(OperatorAction, method, *([] if method == "add" else [action.pk]))
    assert admin_client.post(url, {"reason": "another", "post": "yes"}).status_code == 403
