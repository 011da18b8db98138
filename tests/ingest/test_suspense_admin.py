"""The list of unassigned payments, and assigning from it."""

import re
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.utils import timezone

from ingest import inbox
from ingest.models import Webhook
from ledger import corrections
from ledger.models import Payment, UnassignedPayment
from tests.admin_client import admin_url, changelist_rows, superuser_client
from tests.factories import ROMASHKA, SUSPENSE, VASILEK, balances, make_organizations, terms
from tests.markers import every_database, sqlite_run_only
from worker.applying import apply_batch

pytestmark = [pytest.mark.django_db(transaction=True), sqlite_run_only]
LIST = "/admin/ledger/unassignedpayment/"
ASSIGN = "/admin/ingest/webhook/action/assign/"


def suspended(kopecks: int = 100_00, *, inn: str = SUSPENSE, source: str = "tochka") -> UUID:
    payment = terms(kopecks, inn=inn)
    inbox.store(payment, inbox.Delivery(b"", source))
    apply_batch(10)
    return payment.operation_id


def returned() -> UUID:
    """Return an operation that was assigned and returned, so that its payment has no webhook of its own."""
    operation_id = suspended()
    make_organizations(VASILEK)
    corrections.correct(operation_id, corrections.assignment(VASILEK))
    corrections.correct(operation_id, corrections.return_to_suspense(operation_id))
    return operation_id


def group_client(name: str) -> Client:
    user = User.objects.create_user(f"of_{name}", is_staff=True)
    user.groups.add(Group.objects.get(name=name))
    client = Client()
    client.force_login(user)
    return client


def submit(client: Client, page: str, **fields: Any) -> str:
    hidden = dict(re.findall(r'<input type="hidden" name="(ids|digest)" value="([^"]*)"', page))
    response = client.post(ASSIGN, {**hidden, "reason": "known by phone", **fields}, follow=True)
    assert response.status_code == 200
    return response.content.decode()


@every_database
def test_operator_sees_what_waits_and_an_auditor_has_no_button() -> None:
    operation_id = returned()
    webhook = Webhook.objects.get(operation_id=operation_id)

    page = group_client("Operators").get(LIST).content.decode()
    assert "Assign to an organization" in page
    assert f"/admin/ingest/webhook/{webhook.pk}/change/" in page
    assert "tochka" in page

    auditor = group_client("Auditors")
    page = auditor.get(LIST).content.decode()
    assert SUSPENSE in page
    assert "Assign" not in page.partition("result_list")[2]
    assert auditor.get(f"{LIST}{UnassignedPayment.objects.get().pk}/assign/").status_code == 403


def test_returned_payment_is_assigned_by_its_button() -> None:
    returned()
    client = superuser_client()

    page = client.get(f"{LIST}{UnassignedPayment.objects.get().pk}/assign/", follow=True).content.decode()
    preview = submit(client, page, inn=ROMASHKA, previewed_inn="")
    assert "new: nothing was posted to it before" in preview
    assert balances()[SUSPENSE] == 100_00
    submit(client, preview, inn=ROMASHKA, previewed_inn=ROMASHKA)

    assert balances() == {SUSPENSE: 0, VASILEK: 0, ROMASHKA: 100_00}
    assert changelist_rows(client, UnassignedPayment) == []


@every_database
def test_selected_payments_are_previewed_one_after_the_other() -> None:
    suspended(1_00), suspended(20_00)
    client = superuser_client()
    selected = list(UnassignedPayment.objects.values_list("pk", flat=True))
    form = {"action": "assign_selected", "_selected_action": selected, "index": "0"}

    page = client.post(LIST, form).content.decode()
    preview = submit(client, page, inn=ROMASHKA, previewed_inn="").replace("\N{NO-BREAK SPACE}", " ")

    assert "Assign 2 payments to" in preview
    amounts = re.findall(r"(?:<strong>)?(−?[0-9]+,[0-9]{2}) ₽", preview.partition("<tbody>")[2])
    assert amounts == [
        *("21,00", "−1,00", "20,00", "0,00", "1,00", "1,00"),
        *("20,00", "−20,00", "0,00", "1,00", "20,00", "21,00"),
    ]


def test_preview_warns_of_an_inn_with_wrong_check_digits() -> None:
    suspended()
    client = superuser_client()
    page = client.get(f"{LIST}{UnassignedPayment.objects.get().pk}/assign/", follow=True).content.decode()

    assert "the check digits are invalid" in submit(client, page, inn="7707083894", previewed_inn="")


def test_assigned_payment_has_no_page_to_assign_it_again() -> None:
    operation_id = suspended()
    payment = Payment.objects.get(operation_id=operation_id)
    make_organizations(VASILEK)
    corrections.correct(operation_id, corrections.assignment(VASILEK))

    assert superuser_client().get(f"{LIST}{payment.pk}/assign/").status_code == 404


@every_database
def test_filters_by_age_account_and_source() -> None:
    suspended(1_00)
    suspended(2_00, inn="@unknown", source="tbank")
    client = superuser_client()

    def shown(**query: str) -> int:
        return len(changelist_rows(client, UnassignedPayment, **query))

    assert shown() == 2
    assert (shown(source="tbank"), shown(source="bank")) == (1, 0)
    assert (shown(account="@unknown"), shown(account="@other")) == (1, 0)
    assert (shown(age="day"), shown(age="month")) == (0, 0)
    assert client.get(LIST, {"age": "x"}).status_code == 302  # Django's answer to an unknown value


@every_database
def test_age_in_days_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    suspended()
    later = timezone.now() + timedelta(days=6, hours=1)
    monkeypatch.setattr("ingest.admin.suspense.timezone.now", lambda: later)
    client = superuser_client()

    assert len(changelist_rows(client, UnassignedPayment, age="five")) == 1
    assert '<td class="field-age">6</td>' in client.get(LIST).content.decode()


def test_webhook_page_offers_what_is_possible() -> None:
    operation_id = suspended()
    client = superuser_client()
    url = admin_url(Webhook, "change", Webhook.objects.get(operation_id=operation_id).pk)

    def offered() -> set[str]:
        return set(re.findall(r"/admin/ingest/webhook/action/(\w+)/", client.get(url).content.decode()))

    assert offered() == {"reverse", "assign"}
    make_organizations(VASILEK)
    corrections.correct(operation_id, corrections.assignment(VASILEK))
    assert offered() == {"reverse", "unassign"}
    corrections.correct(operation_id, corrections.reversal)
    assert offered() == {"restore"}


@every_database
def test_timeline_shows_the_reversal_and_the_payment_in_its_place() -> None:
    operation_id = returned()
    page = superuser_client().get(
        admin_url(Webhook, "change", Webhook.objects.get(operation_id=operation_id).pk)
    )
    text = page.content.decode().replace("\N{NO-BREAK SPACE}", " ")

    assert text.count("Reversed: the payment is taken back") == 2
    assert text.count("Posted again, with other terms") == 2
    assert "the balance went from 100,00 ₽ to 0,00 ₽" in text
