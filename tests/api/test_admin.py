import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone

from api.keys import authenticate, issue
from api.models import READ_ALL, ApiKey
from tests.admin_client import admin_url, changelist_rows, staff_client, superuser_client
from tests.factories import ROMASHKA, VASILEK

pytestmark = pytest.mark.django_db
FORM = {"name": "shop", "scopes": f"{VASILEK}\n{ROMASHKA}", "expires_at_0": "", "expires_at_1": ""}


@pytest.fixture
def admin_client() -> Client:
    return superuser_client()


def key_on(content: str) -> str:
    (key,) = re.findall(r"prihod_[0-9a-f]{12}_[\w-]{43}", content)
    return str(key)


def test_new_key_is_shown_once_with_the_scopes_of_the_form(admin_client: Client) -> None:
    response = admin_client.post(admin_url(ApiKey, "add"), FORM)

    assert response.status_code == 200
    assert "no-store" in response["Cache-Control"]
    row = authenticate(key_on(response.content.decode()))
    assert row is not None
    assert (row.name, row.scopes, row.expires_at) == ("shop", f"{ROMASHKA} {VASILEK}", None)


def test_key_appears_on_no_other_page_session_or_log(
    admin_client: Client, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    response = admin_client.post(admin_url(ApiKey, "add"), FORM)
    secret = key_on(response.content.decode()).split("_", 2)[2]
    row = ApiKey.objects.get()

    pages: list[Any] = [admin_client.get(admin_url(ApiKey, "changelist"))]
    pages += [admin_client.get(admin_url(ApiKey, name, row.pk)) for name in ("change", "history")]
    texts = [each.content.decode() for each in pages] + [str(admin_client.cookies)]
    shown = [*texts]
    texts += [str(values) for model in (ApiKey, LogEntry) for values in model.objects.values_list()]
    texts += [str(session.get_decoded()) for session in Session.objects.all()]
    texts += [*capsys.readouterr(), caplog.text]

    assert all(each.status_code == 200 for each in pages)
    assert not any(row.digest in text for text in shown)
    assert not any(secret in text for text in texts)
    (entry,) = LogEntry.objects.all()
    assert (entry.object_repr, entry.object_id) == (str(row), str(row.pk))


@pytest.mark.parametrize(
    "invalid",
    [
        {"scopes": "123"},
        {"scopes": ""},
        {"name": ""},
        {"expires_at_0": "2020-01-01", "expires_at_1": "00:00"},
    ],
)
def test_form_rejects_invalid_fields(admin_client: Client, invalid: dict[str, str]) -> None:
    response = admin_client.post(admin_url(ApiKey, "add"), FORM | invalid)

    assert response.status_code == 200
    assert response.context["errors"]
    assert not ApiKey.objects.exists()


def test_key_is_revoked_after_confirmation(admin_client: Client) -> None:
    row, key = issue("shop", READ_ALL)
    issue("other", READ_ALL)
    selected = {"action": "revoke_selected", "_selected_action": [row.pk]}

    question = admin_client.post(admin_url(ApiKey, "changelist"), selected).content.decode()
    assert str(row) in question
    assert authenticate(key)
    admin_client.post(admin_url(ApiKey, "changelist"), selected | {"confirmed": "Revoke 1"})

    assert authenticate(key) is None
    assert list(ApiKey.objects.exclude(revoked_at=None)) == [row]
    assert [entry.get_change_message() for entry in LogEntry.objects.all()] == ["Changed revoked."]


def test_superuser_cannot_edit_or_delete_a_key(admin_client: Client) -> None:
    row, _ = issue("shop", ROMASHKA)
    before = list(ApiKey.objects.values())

    assert (
        admin_client.post(admin_url(ApiKey, "change", row.pk), FORM | {"scopes": READ_ALL}).status_code == 403
    )
    assert admin_client.post(admin_url(ApiKey, "delete", row.pk), {"post": "yes"}).status_code == 403
    admin_client.post(
        admin_url(ApiKey, "changelist"),
        {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"},
    )

    assert list(ApiKey.objects.values()) == before


def test_each_key_action_requires_its_permission() -> None:
    row, key = issue("shop", ROMASHKA)
    viewer, outsider = staff_client("view_apikey"), staff_client(name="pyotr")
    revoke = {"action": "revoke_selected", "_selected_action": [row.pk], "confirmed": "yes"}

    assert outsider.get(admin_url(ApiKey, "changelist")).status_code == 403
    assert outsider.post(admin_url(ApiKey, "add"), FORM).status_code == 403
    assert len(changelist_rows(viewer, ApiKey)) == 1
    assert viewer.get(admin_url(ApiKey, "change", row.pk)).status_code == 200
    assert viewer.post(admin_url(ApiKey, "add"), FORM).status_code == 403
    viewer.post(admin_url(ApiKey, "changelist"), revoke)
    assert authenticate(key)

    staff_client("view_apikey", "revoke_apikey", name="vera").post(admin_url(ApiKey, "changelist"), revoke)
    assert authenticate(key) is None
    maker = staff_client("add_apikey", name="ivan")
    assert authenticate(key_on(maker.post(admin_url(ApiKey, "add"), FORM).content.decode()))


def test_keys_are_found_by_prefix_and_name_and_show_their_state(admin_client: Client) -> None:
    row, _ = issue("shop", f"{ROMASHKA} {VASILEK}", timezone.now() + timedelta(days=1))
    other, _ = issue("accounting", READ_ALL)

    assert (
        changelist_rows(admin_client, ApiKey, q=row.prefix)
        == changelist_rows(admin_client, ApiKey, q="SHO")
        == [str(row)]
    )
    assert changelist_rows(admin_client, ApiKey) == [str(other), str(row)]
    content = admin_client.get(admin_url(ApiKey, "changelist")).content.decode()
    assert f"{ROMASHKA} and 1 more" in content
    assert content.count(">valid<") == 2
