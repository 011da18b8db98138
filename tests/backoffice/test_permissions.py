"""Isolation of permissions: a staff user sees only the models that its permissions name."""

import random
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.db.models import Model
from django.test import Client
from django.urls import reverse
from django_celery_results.models import TaskResult
from django_otp.plugins.otp_static.models import StaticDevice
from django_otp.plugins.otp_totp.models import TOTPDevice

from api.keys import issue
from ingest import inbox, operator_actions
from ingest.models import ConflictingDelivery, LedgerVerification, OperatorAction, Webhook
from statements.importing import import_statement
from statements.models import OwnAccount
from statements.rejecting import record_rejected
from tests import admin_rows
from tests.admin_client import admin_url, staff_client, superuser_client
from tests.factories import IVANOV, SAMPLE, VASILEK, make_webhook, payment_body, post_payments, terms
from tests.markers import sqlite_run_only
from tests.statements.files import document, section, statement

pytestmark = [pytest.mark.django_db, sqlite_run_only]
PAYER = "7736050003"  # in the ledger; the webhook of the same operation has VASILEK
LEDGER = {"view_payment", "view_balancelog", "view_organization"}
# Texts on the pages, and the permissions that each allow to see them. An organization's INN is shown with its
# payments, and a payment's amount with its ledger entry.
SECRETS: dict[str, set[str]] = {
    "777,19": {"view_payment", "view_balancelog"},
    "877,19": {"view_balancelog"},
    "877,74": {"view_balancelog", "view_organization"},
    PAYER: LEDGER,
    "500,01": {"view_webhook"},
    VASILEK: {"view_webhook"},
    "999,13": {"view_conflictingdelivery"},
    "999.13": {"view_conflictingdelivery"},
    IVANOV: {"view_conflictingdelivery"},
    "of-the-rejected": {"view_rejecteddelivery"},
    "of-the-ignored": {"view_ignoreddelivery"},
    "of-the-unrecognized": {"view_unrecognizeddelivery"},
    "of-the-traceback": {"view_taskresult"},
    "of-the-drift": {"view_ledgerverification"},
    "of-the-act": {"view_operatoraction", "view_webhook"},
    "of-the-statement": {"view_bankstatement"},
    "of-the-line": {"view_statementline", "view_bankstatement"},
    "of-the-refused": {"view_rejectedstatement"},
    "of-the-account": {"view_ownaccount", "view_statementline", "view_bankstatement"},
    SAMPLE: {"view_apikey"},
    "key-of-the-phone": set(),
}


@pytest.fixture(autouse=True)
def rows() -> None:
    superuser_client("first")
    admin_rows.create_one_of_each()
    payment = terms(777_19, inn=PAYER)
    post_payments(terms(100_00, inn=PAYER), payment, terms(55, inn=PAYER))
    other = terms(500_01, inn=VASILEK, operation_id=payment.operation_id)
    webhook = make_webhook(other, status=Webhook.Status.FAILED, attempts=5, last_error="it broke")
    sent = payment_body(other, amount="999.13", payer_inn=IVANOV)
    ConflictingDelivery.objects.create(webhook=webhook, difference="amount_kopecks, inn", body=sent)
    inbox.record_rejected(inbox.Delivery(b'"of-the-rejected"'), "of-the-rejected")
    inbox.record_unrecognized(
        inbox.Delivery(b'"unrecognized"', "tbank"), b'"unrecognized"', "of-the-unrecognized"
    )
    inbox.record_ignored(inbox.Delivery(b'"of-the-ignored"', "tbank"), "of-the-ignored")
    TaskResult.objects.create(
        task_id=f"webhook-{webhook.pk}-2", status="FAILURE", traceback="of-the-traceback"
    )
    LedgerVerification.objects.create(duration=timedelta(0), rows_scanned=1, drift="of-the-drift")
    operator_actions.create(
        OperatorAction.Kind.REPLAY, {webhook.pk}, User.objects.earliest("pk"), "of-the-act"
    )
    OwnAccount.objects.update(bank="of-the-account")
    line = document(Номер="99", НазначениеПлатежа="of-the-line")
    import_statement(statement(section(), line).encode("cp1251"), "of-the-statement")
    record_rejected("of-the-refused", b"", "empty: the file is empty", "empty")
    issue("a program", SAMPLE)


PERMISSIONS = [
    *(f"view_{model._meta.model_name}" for model in admin_rows.registered_models()),
    *(
        "replay_webhook",
        "dismiss_webhook",
        "resolve_conflict",
        "correct_payment",
        "decide_duplicate",
        "add_apikey",
        "revoke_apikey",
        "add_bankstatement",
        "accept_statement",
        "settle_line",
    ),
]


def users() -> Iterator[frozenset[str]]:
    """Yield few sets of permissions, because each user opens every page.

    For each permission and each secret that it must not show, one set has this permission and none that
    shows the secret. With more permissions a page shows no less.
    """
    chance = random.Random(17)  # of the first hundred, the one that needs the fewest sets
    showing = sorted(set().union(*SECRETS.values()))
    others = frozenset(PERMISSIONS).difference(showing)
    unseen = {(each, secret) for secret, seen_with in SECRETS.items() for each in PERMISSIONS}
    unseen -= {(each, secret) for secret, seen_with in SECRETS.items() for each in seen_with}
    while unseen:
        some = (others.union(chance.sample(showing, len(showing) // 2)) for _ in range(50))
        best = max(some, key=lambda chosen: len(unseen & shows_not(chosen)))
        unseen -= shows_not(best)
        yield best


def shows_not(permissions: frozenset[str]) -> set[tuple[str, str]]:
    """Return (permission, secret) for each secret that a user with `permissions` must not see."""
    hidden = [secret for secret, seen_with in SECRETS.items() if not permissions & seen_with]
    return {(each, secret) for each in permissions for secret in hidden}


def addresses() -> list[str]:
    """Return the path of each page that shows data, for the newest row of each model: it has all secrets."""
    found = {"/admin/ingest/webhook/action/replay/?ids=1%202", "/admin/ingest/webhook/action/replay/?all=1"}
    for route in admin_rows.admin_routes():
        if route.endswith(("/add/", "/delete/", "/password/", "logout/")):
            continue
        model = admin_rows.model_of_route(route)
        rows = model._default_manager.order_by("-pk")[:1] if model else []
        found |= {admin_rows.fill_route(route, str(row.pk)) for row in rows} if "<" in route else {route}
    return sorted(found)


def text_of(browser: Client, path: str) -> str:
    response: Any = browser.get(path)
    content: bytes = b"".join(response) if response.streaming else response.content
    return content.decode(errors="replace").replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize("permissions", list(users()))
def test_permissions_show_no_data_of_another_model(permissions: frozenset[str]) -> None:
    browser = staff_client(*permissions)
    hidden = {secret for _, secret in shows_not(permissions)}
    texts = {path: text_of(browser, path) for path in addresses()}
    shown = [(path, secret) for path, text in texts.items() for secret in sorted(hidden) if secret in text]
    assert shown == [], sorted(permissions)


def test_superuser_sees_every_secret() -> None:
    browser = superuser_client()
    content = "".join(text_of(browser, path) for path in addresses())
    assert [secret for secret in SECRETS if secret not in content and secret != "key-of-the-phone"] == []


@pytest.mark.parametrize(
    ("permissions", "shown", "hidden"),
    [
        (["view_webhook"], ["500,01"], ["777,19", "877,19", "999,13", "of-the-traceback"]),
        (["view_webhook", "view_payment"], ["777,19"], ["877,19"]),
        (["view_webhook", "view_payment", "view_balancelog"], ["777,19", "877,19"], ["999,13"]),
        (["view_webhook", "view_conflictingdelivery"], ["999,13"], ["777,19"]),
        (["view_webhook", "view_taskresult"], ["of-the-traceback"], ["777,19"]),
    ],
)
def test_timeline_shows_only_events_that_the_viewer_may_see(
    permissions: list[str], shown: list[str], hidden: list[str]
) -> None:
    webhook = Webhook.objects.get(payer_inn=VASILEK)
    text = text_of(staff_client(*permissions), admin_url(Webhook, "change", webhook.pk))
    assert [secret for secret in shown if secret not in text] == []
    assert [secret for secret in hidden if secret in text] == []


# --- granting permissions -----------------------------------------------------------------------------

PRIVILEGES = {"is_superuser": "on", "is_staff": "on", "is_active": "on", "username": "dora"}


@pytest.fixture
def clerk() -> Client:
    """Return a staff user with every permission who is no superuser."""
    every = Permission.objects.values_list("codename", flat=True)
    return staff_client(*every, name="dora")


def test_staff_cannot_make_itself_a_superuser(clerk: Client) -> None:
    dora = User.objects.get(username="dora")
    group = Group.objects.earliest("pk")
    form = PRIVILEGES | {"groups": [group.pk], "user_permissions": [], "first_name": "Dora"}
    assert clerk.post(admin_url(User, "change", dora.pk), form).status_code == 302
    dora.refresh_from_db()
    assert dora.first_name == "Dora"
    assert not dora.is_superuser
    assert not dora.groups.exists()
    assert dora.user_permissions.exists()


def test_staff_cannot_change_or_delete_a_superuser(clerk: Client) -> None:
    admin_client = User.objects.get(username="first")
    assert (
        clerk.post(
            admin_url(User, "change", admin_client.pk), {"username": "first", "email": "x@x"}
        ).status_code
        == 403
    )
    assert clerk.post(admin_url(User, "delete", admin_client.pk), {"post": "yes"}).status_code == 403
    delete = {"action": "delete_selected", "_selected_action": admin_client.pk, "post": "yes", "index": "0"}
    clerk.post(admin_url(User, "changelist"), delete)
    assert User.objects.filter(pk=admin_client.pk, email="").exists()


@pytest.mark.parametrize("name", ["first", "owner", "dora"])
def test_staff_can_set_only_its_own_password(name: str, clerk: Client) -> None:
    user = User.objects.get(username=name)
    form = {"usable_password": "true", "password1": "long enough 1", "password2": "long enough 1"}
    assert clerk.post(reverse("admin:auth_user_password_change", args=[user.pk]), form).status_code == 403
    assert User.objects.get(pk=user.pk).password == user.password
    assert clerk.get("/admin/password_change/").status_code == 200


def test_superuser_can_grant_permissions_and_set_passwords() -> None:
    admin_client = superuser_client()
    owner = User.objects.get(username="owner")
    assert (
        admin_client.post(admin_url(User, "change", owner.pk), PRIVILEGES | {"username": "owner"}).status_code
        == 302
    )
    form = {"usable_password": "true", "password1": "long enough 1", "password2": "long enough 1"}
    assert (
        admin_client.post(reverse("admin:auth_user_password_change", args=[owner.pk]), form).status_code
        == 302
    )
    owner.refresh_from_db()
    assert owner.is_superuser
    assert owner.check_password("long enough 1")


@pytest.mark.parametrize("model", [Group, TOTPDevice, StaticDevice])
def test_staff_cannot_change_groups_or_second_factors(model: type[Model], clerk: Client) -> None:
    row: Any = model._default_manager.latest("pk")
    for name, arguments in [("add", []), ("change", [row.pk]), ("delete", [row.pk])]:
        assert clerk.post(admin_url(model, name, *arguments), {"name": "x", "post": "yes"}).status_code == 403
    assert model._default_manager.filter(name=row.name).exists()
    if model is not Group:
        assert clerk.get(admin_url(model, "changelist")).status_code == 403
        assert clerk.get(admin_url(model, "change", row.pk)).status_code == 403
