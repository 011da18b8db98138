"""The admin in Russian: language choice, completeness, and English API responses."""

import re
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.test import Client
from django.utils import timezone, translation
from django_celery_results.models import TaskResult
from django_otp.plugins.otp_static.models import StaticDevice
from django_otp.plugins.otp_totp.models import TOTPDevice

from api.keys import issue
from api.models import ApiKey
from ingest import operator_actions, unrecognized, version_storage
from ingest.admin import action_views
from ingest.banks.events import UnrecognizedEvent
from ingest.inbox import Delivery
from ingest.models import (
    ConflictingDelivery,
    DuplicateDelivery,
    IgnoredDelivery,
    LedgerVerification,
    OperatorAction,
    RejectedDelivery,
    SuspectedDuplicate,
    UnrecognizedDelivery,
    Webhook,
)
from ledger.models import Organization, Payment
from monitoring.format_duration import format_duration
from monitoring.models import Alert
from tests import admin_rows
from tests.admin_client import admin_url, hidden_fields, staff_client, superuser_client
from tests.english_scan import find_english
from tests.factories import ROMASHKA, SUSPENSE, VASILEK, make_webhook, payment_body, post_payments, terms
from tests.markers import sqlite_run_only
from worker.models import Heartbeat

pytestmark = [pytest.mark.django_db, sqlite_run_only]
SWITCH = "/admin/language/"
WHY = "исправлено"


def speaking(language: str, client: Client) -> Client:
    client.defaults["HTTP_ACCEPT_LANGUAGE"] = language
    return client


@pytest.fixture
def anna() -> Client:
    return speaking("ru", superuser_client("анна"))


def pages(client: Client) -> Iterator[str]:
    """Yield every page of the admin; for each model the pages of its first row."""
    yield from ("/admin/", "/admin/time-zone/", "/admin/password_change/", "/admin/ingest/webhook/failures/")
    yield "/admin/statements/statementline/reconciliation/?first=2026-03-01&last=2026-03-31"
    for model, its_admin in admin.site._registry.items():
        yield f"/admin/{model._meta.app_label}/"
        yield admin_url(model, "changelist")
        if its_admin.search_fields:
            yield f"{admin_url(model, 'changelist')}?q=1"
        if client.get(admin_url(model, "add")).status_code == 200:
            yield admin_url(model, "add")
        row = its_admin.model._default_manager.order_by("pk").first()
        assert row, f"there is no {model} to show"
        for name in ("change", "history", "delete"):
            if name != "delete" or client.get(admin_url(model, "delete", row.pk)).status_code == 200:
                yield admin_url(model, name, row.pk)


@pytest.fixture(autouse=True)
def russian_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the reasons of bank adapters, which are in English."""
    monkeypatch.setattr(unrecognized, "_read", lambda _: UnrecognizedEvent("не то слово"))


def create_rows() -> dict[str, Webhook]:
    """Create a row of every model, without Latin words in user input; return webhooks by status."""
    anna = User.objects.get()
    anna.groups.add(Group.objects.create(name="Кассиры"))
    webhooks = {status: make_webhook(terms(inn=VASILEK), document_number="ПП-1") for status in Webhook.Status}
    for status, webhook in webhooks.items():
        Webhook.objects.filter(pk=webhook.pk).update(status=status, attempts=1, last_error="нет места")
    applied, failed = webhooks[Webhook.Status.APPLIED], webhooks[Webhook.Status.FAILED]
    post_payments(applied.terms, terms(inn=SUSPENSE, document_number="ПП-2"))
    altered = payment_body(terms(1, operation_id=failed.operation_id))
    ConflictingDelivery.objects.create(webhook=failed, difference="amount_kopecks", body=altered)
    resolved = ConflictingDelivery.objects.create(webhook=applied, difference="amount_kopecks", body=altered)
    DuplicateDelivery.objects.create(webhook=failed)
    SuspectedDuplicate.objects.create(webhook=webhooks[Webhook.Status.HELD], first=applied)
    numbered = terms(document_number="ПП-3")
    for version in (1, 2):
        version_storage.store(numbered, version, Delivery(payment_body(numbered)))
    for kind in (RejectedDelivery, IgnoredDelivery, UnrecognizedDelivery):
        kind.objects.create(reason="не тот счёт", body=b"{}")
    everything = UnrecognizedDelivery.objects.all()
    operator_actions.run_chunk(
        operator_actions.create_for_deliveries(OperatorAction.Kind.PROCESS, everything, anna, WHY).pk
    )
    for kind, webhook in [
        (OperatorAction.Kind.REPLAY, applied),
        (OperatorAction.Kind.DISMISS, failed),
        (OperatorAction.Kind.RESOLVE, applied),
    ]:
        operator_actions.run_chunk(operator_actions.create(kind, [webhook.pk], anna, WHY).pk)
    Webhook.objects.filter(pk=failed.pk).update(status=Webhook.Status.FAILED)
    resolved.refresh_from_db()
    assert resolved.resolved_by
    admin_rows.create_bank_statements()
    LedgerVerification.objects.create(duration=timedelta(seconds=1), rows_scanned=1, drift="расхождение")
    Heartbeat.objects.create(
        name="w@1", kind="worker", processes=2, seen_at=timezone.now() - timedelta(minutes=30)
    )
    Heartbeat.objects.create(name="b@1", kind="scheduler", processes=1, seen_at=timezone.now())
    TaskResult.objects.create(task_id=f"webhook-{failed.pk}-1", status="FAILURE", traceback="нет места")
    Alert.objects.create(
        cause="1", severity=2, text="нет места", remedy="убрать", magnitude=1, started_at=timezone.now()
    )
    issue("касса", "read:all", timezone.now() + timedelta(days=1))
    for device in (StaticDevice, TOTPDevice):
        device.objects.create(user=anna, name="телефон", confirmed=False)
    return webhooks


# --- completeness -------------------------------------------------------------------------------------


def test_russian_page_contains_no_english(anna: Client) -> None:
    create_rows()
    left: dict[str, str] = {}
    for path in pages(anna):
        response = anna.get(path)
        assert (response.status_code, response["Content-Language"]) == (200, "ru"), path
        left |= dict.fromkeys(find_english(response.content.decode()), path)
    assert not left, "\n".join(f"{path}: {words}" for words, path in left.items())


def test_action_pages_and_messages_are_in_russian(anna: Client) -> None:
    keys = [str(webhook.pk) for webhook in create_rows().values()]
    webhooks, chosen = admin_url(Webhook, "changelist"), {"_selected_action": keys}
    responses = [
        anna.post(webhooks, {"action": f"{kind}_selected", **chosen})
        for kind in ("replay", "dismiss", "resolve")
    ]
    ids = {"ids": " ".join(keys)}
    responses += [
        anna.post(f"/admin/ingest/webhook/action/{kind}/", {**ids, "reason": ""})
        for kind in action_views.KINDS
    ]
    acts = {kind: f"/admin/ingest/webhook/action/{kind}/" for kind in action_views.KINDS}
    responses += [
        anna.post(action, {**ids, "reason": WHY}, follow=True)  # unconfirmed
        for action in acts.values()
    ]
    responses += [
        anna.post(action, {**hidden_fields(anna.get(action, ids)), "reason": WHY}, follow=True)
        for action in acts.values()
    ]
    unrecognized, key = (
        admin_url(UnrecognizedDelivery, "changelist"),
        str(UnrecognizedDelivery.objects.get().pk),
    )
    responses += [
        anna.post(unrecognized, {"action": f"{action}_selected", "_selected_action": [key]})
        for action in ("process", "dismiss")
    ]
    responses += [anna.get(f"{unrecognized}action/discard/?ids={key}")]
    responses += [
        anna.post(action, {**hidden_fields(anna.get(action, {"ids": key})), "reason": WHY}, follow=True)
        for action in (f"{unrecognized}action/{kind}/" for kind in ("process", "discard", "process"))
    ]
    responses += [anna.post("/admin/ingest/webhook/action/replay/", {"ids": "", "reason": WHY}, follow=True)]

    revoked = {"_selected_action": [ApiKey.objects.get().pk], "action": "revoke_selected"}
    responses += [anna.post(admin_url(ApiKey, "changelist"), revoked)]
    responses += [anna.post(admin_url(ApiKey, "changelist"), revoked | {"confirmed": "1"}, follow=True)]
    responses += [anna.get(admin_url(ApiKey, "history", ApiKey.objects.get().pk))]
    responses += [anna.post(admin_url(ApiKey, "add"), {"name": "касса", "scopes": "read:all"})]
    responses += [
        anna.post(admin_url(ApiKey, "add"), {"name": "касса", "scopes": "?", "expires_at_0": "01.01.2020"})
    ]

    assert {response.status_code for response in responses} == {200}
    assert [words for response in responses for words in find_english(response.content.decode())] == []


def test_login_and_denied_pages_are_in_russian() -> None:
    User.objects.create_user("олег", password=WHY)
    visitor = speaking("ru", Client())
    responses = [visitor.get("/admin/login/")]
    responses += [visitor.post("/admin/login/", {"username": "олег", "password": "?"}) for _ in range(6)]
    visitor.force_login(User.objects.get())
    responses.append(visitor.get("/admin/login/"))
    responses.append(speaking("ru", staff_client(name="вера")).get("/admin/ingest/webhook/failures/"))

    assert [response.status_code for response in responses[-3:]] == [429, 200, 403]
    assert [words for response in responses for words in find_english(response.content.decode())] == []


@pytest.mark.parametrize("encoding", ["utf-8", "windows-1251"])
def test_statement_is_downloaded_in_the_viewers_language(anna: Client, encoding: str) -> None:
    post_payments(terms(14500000, document_number="ПП-1"))
    path = f"/admin/ledger/organization/{Organization.objects.get().pk}/statement.csv"

    file = b"".join(anna.get(path, {"encoding": encoding})).decode(encoding)
    in_english = b"".join(speaking("en", anna).get(path, {"encoding": encoding})).decode(encoding)

    assert "Выписка организации" in file
    assert "№;Дата;Время;Номер документа" in file
    assert "Оборот;;145000,00" in file
    assert "No.;Day;Time;Document number" in in_english
    assert "Turnover;;145000,00" in in_english


def test_find_english_finds_untranslated_text() -> None:
    page = (
        '<h1>Деньги идут</h1><p title="since received">12 <b>not yet applied</b> CSV</p><pre>raw bytes</pre>'
    )

    assert find_english(page) == ["since received", "not yet applied"]


# --- language choice ----------------------------------------------------------------------------------


def heading(client: Client) -> str:
    found = re.search(r'<html lang="(\w+)"', client.get("/admin/login/").content.decode())
    assert found
    return found[1]


@pytest.mark.parametrize(
    ("accepted", "spoken"),
    [
        ("ru", "ru"),
        ("ru-RU,ru;q=0.9,en;q=0.8", "ru"),
        ("en-US", "en"),
        ("de,ru;q=0.5", "ru"),
        ("fr", "en"),
        ("", "en"),
    ],
)
def test_page_has_the_browsers_language_or_english(accepted: str, spoken: str) -> None:
    assert heading(speaking(accepted, Client())) == spoken


def test_language_switch_sets_a_cookie_and_returns_to_the_page(anna: Client) -> None:
    back = admin_url(Payment, "changelist")
    assert 'value="en" lang="en">English' in anna.get(back).content.decode()

    response = anna.post(SWITCH, {"language": "en", "next": back})

    assert (response.status_code, response["Location"]) == (302, back)
    cookie = response.cookies["django_language"]
    assert (cookie.value, cookie["path"], cookie["samesite"]) == ("en", "/admin/", "Lax")
    assert cookie["max-age"]
    assert 'value="ru" lang="ru">Русский' in anna.get(back).content.decode()


def test_language_switch_rejects_get_csrf_and_foreign_redirects(anna: Client) -> None:
    strict = Client(enforce_csrf_checks=True)

    assert not anna.get(SWITCH, {"language": "en"}).cookies
    assert not anna.post(SWITCH, {"language": "xx", "next": "/admin/"}).cookies
    assert strict.post(SWITCH, {"language": "en", "next": "/admin/"}).status_code == 403
    assert anna.post(SWITCH, {"language": "en", "next": "https://example.com/"})["Location"] == "/"


def test_dates_follow_the_language_and_amounts_do_not(anna: Client) -> None:
    post_payments(terms(14500000))

    shown = anna.get(admin_url(Payment, "changelist")).content.decode()

    assert "27.04.2024 21:00:00" in shown
    assert "145\N{NO-BREAK SPACE}000,00\N{NO-BREAK SPACE}₽" in shown


def test_duration_has_the_languages_units_comma_and_plural() -> None:
    with translation.override("ru"):
        texts = [
            format_duration(seconds)
            for seconds in (0.045, 3.2, 47, 240, 7200, 3 * 86400, 21 * 86400, 5 * 86400)
        ]

    assert texts == ["45 мс", "3,2 с", "47 с", "4 мин", "2 ч", "3 дня", "21 день", "5 дней"]


# --- API responses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/api/operations/1/", f"/api/organizations/{ROMASHKA}/balance/", "/healthz"]
)
def test_api_responses_are_in_english_for_any_accept_language(path: str) -> None:
    program = Client(headers={"Accept-Language": "ru"})
    program.cookies["django_language"] = "ru"

    response = program.get(path)

    assert response.content.isascii()
    assert not response.has_header("Content-Language")
    assert "Accept-Language" not in response.get("Vary", "")


def test_language_does_not_leak_into_the_next_request(anna: Client) -> None:
    anna.get("/admin/")

    assert translation.get_language() == "en"
    assert heading(Client()) == "en"
