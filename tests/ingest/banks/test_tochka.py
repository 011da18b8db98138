import contextlib
from uuid import NAMESPACE_URL, uuid5

import pytest
from django.test import Client
from hypothesis import given
from pytest_django import Settings

from ingest.banks import tochka
from ingest.banks.telling import Credit, Ignored
from ingest.exceptions import InvalidDelivery, TurnedAway
from ingest.models import ConflictingDelivery, IgnoredDelivery, RejectedDelivery, Webhook
from ingest.reconciliation import reconcile
from ledger.models import Payment
from ledger.verification import verify
from tests.browsers import listed, page, superuser
from tests.cast import ROMASHKA, VASILEK, balances
from tests.ingest.banks.conftest import Deliver, Told, applied, sample
from tests.ingest.banks.hostile import hostile

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_namespace_is_made_of_the_banks_address() -> None:
    assert uuid5(NAMESPACE_URL, "https://tochka.com/") == tochka.NAMESPACE


def test_an_incoming_payment_credits_the_payer_once(from_tochka: Deliver) -> None:
    told = sample("tochka_incoming")

    assert from_tochka(told) == (200, "success")
    assert from_tochka(told) == (200, "already processed")
    applied()

    assert balances() == {ROMASHKA: 40_00}
    payment = Payment.objects.get()
    assert payment.operation_id == uuid5(tochka.NAMESPACE, "cbs-tb-92-545278493")
    assert payment.document_number == "328"
    assert payment.document_date.isoformat() == "2024-04-27T00:00:00+00:00"
    assert Webhook.objects.get().source == "tochka"
    assert not [*verify(), *reconcile()]


def test_a_changed_webhook_is_drift_whatever_keys_are_configured_by_then(
    from_tochka: Deliver, settings: Settings
) -> None:
    from_tochka(sample("tochka_incoming"))
    settings.WEBHOOK_GUARDS = {}
    Webhook.objects.update(amount_kopecks=1)

    assert [(drift.what, drift.expected, drift.found) for drift in reconcile()] == [
        ("amount_kopecks", 40_00, 1)
    ]

    settings.TOCHKA_CUSTOMER_CODES = []  # what another customer was paid says nothing about us
    assert not [*reconcile()]


def test_a_payment_told_again_with_another_amount_is_a_conflict(from_tochka: Deliver) -> None:
    from_tochka(sample("tochka_incoming"))

    assert from_tochka(sample("tochka_incoming", SideRecipient={"amount": "41.0"})) == (
        200,
        "already processed",
    )
    applied()

    assert balances() == {ROMASHKA: 40_00}
    conflict = ConflictingDelivery.objects.get()
    assert (conflict.difference, conflict.source) == ("amount_kopecks", "tochka")


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (sample("tochka_outgoing"), "webhookType outgoingPayment is not credited"),
        (sample("tochka_sbp_b2b"), "webhookType incomingSbpB2BPayment is not credited"),
        ({"webhookType": "x" * 300}, f"webhookType {'x' * 64} is not credited"),
        (sample("tochka_incoming", SidePayer={"currency": "USD"}), "currency USD is not credited"),
        (sample("tochka_incoming", SideRecipient={"currency": "CNY"}), "currency CNY is not credited"),
        (sample("tochka_documented"), "SidePayer.inn names nobody: a test, or a payer without an INN"),
    ],
    ids=["outgoing", "sbp", "unknown", "dollars", "yuan", "test"],
)
def test_what_is_no_payment_in_rubles_is_answered_200_and_kept(
    from_tochka: Deliver, told: Told, reason: str
) -> None:
    assert from_tochka(told) == (200, "ignored")

    kept = IgnoredDelivery.objects.get()
    assert (kept.reason, kept.source) == (reason, "tochka")
    assert not Webhook.objects.exists()


@pytest.mark.parametrize(
    ("told", "wrong"),
    [
        ({}, "webhookType: is missing"),
        ({"webhookType": 1}, "webhookType: Expected `str`, got `int`"),
        ({"webhookType": "incomingPayment"}, "SidePayer: is missing"),
        (sample("tochka_incoming", SidePayer=[]), "SidePayer: Expected `object`, got `array`"),
        (sample("tochka_incoming", SidePayer={"inn": 7}), "SidePayer.inn: must be a string, got int"),
        (
            sample("tochka_incoming", SidePayer={"inn": "77"}),
            "SidePayer.inn: must be a string of exactly 10 or 12 digits",
        ),
        (
            sample("tochka_incoming", SideRecipient={"amount": "-1"}),
            "SideRecipient.amount: must be a number, or a string of digits with at most one point",
        ),
        (sample("tochka_incoming", paymentId=""), "paymentId: must have 1 to 64 characters"),
        (sample("tochka_incoming", date="27.04.2024"), "date: must be an ISO 8601 date and time"),
        (sample("tochka_incoming", documentNumber=""), "documentNumber: must have 1 to 255 characters"),
    ],
)
def test_what_can_never_be_credited_is_answered_400_and_kept(
    from_tochka: Deliver, told: Told, wrong: str
) -> None:
    assert from_tochka(told) == (400, wrong.replace("Expected `str`", "must be a string").replace("`", ""))

    assert RejectedDelivery.objects.get().source == "tochka"
    assert not Webhook.objects.exists()


def test_a_body_that_is_no_token_of_the_bank_is_turned_away() -> None:
    answer = Client().post("/api/webhook/tochka/", sample("tochka_incoming"), content_type="application/json")

    assert answer.status_code == 401
    assert not Webhook.objects.exists()


def test_the_banks_word_to_another_customer_is_turned_away(from_tochka: Deliver) -> None:
    """With an account at the bank anybody has its signature on payments to himself."""
    assert from_tochka(sample("tochka_incoming", customerCode="300999999")) == (401, "not authorized")

    assert not Webhook.objects.exists()


def test_without_a_guard_the_door_is_not_there(settings: Settings) -> None:
    settings.WEBHOOK_GUARDS = {}

    assert Client().post("/api/webhook/tochka/", b"", content_type="text/plain").status_code == 404


def test_a_conflict_is_shown_also_when_the_customer_is_ours_no_more(
    from_tochka: Deliver, settings: Settings
) -> None:
    told = sample("tochka_incoming")
    from_tochka(told)
    from_tochka(told | {"documentNumber": "another"})
    boss, webhook = superuser(), Webhook.objects.get()
    page_of_it = page(Webhook, "change", webhook.pk)
    assert "another ≠" in boss.get(page_of_it).content.decode()

    settings.TOCHKA_CUSTOMER_CODES = []

    answer = boss.get(page_of_it)
    assert answer.status_code == 200
    assert "with other content" in answer.content.decode()


def test_a_payment_is_found_by_either_id_and_shows_both(from_tochka: Deliver) -> None:
    from_tochka(sample("tochka_incoming"))
    from_tochka(sample("tochka_incoming", paymentId="other", SidePayer={"inn": VASILEK}))
    webhook = Webhook.objects.get(payer_inn=ROMASHKA)
    boss = superuser()

    assert listed(boss, Webhook, q="cbs-tb-92-545278493") == [str(webhook)]
    assert listed(boss, Webhook, q=str(webhook.operation_id)) == [str(webhook)]
    content = boss.get(page(Webhook, "change", webhook.pk)).content.decode()
    assert "cbs-tb-92-545278493" in content
    assert "&quot;webhookType&quot;: &quot;incomingPayment&quot;" in content  # out of the token


def test_the_banks_own_id_goes_with_the_body_and_the_page_says_so(from_tochka: Deliver) -> None:
    from_tochka(sample("tochka_incoming"))
    Webhook.objects.update(body=b"")

    content = superuser().get(page(Webhook, "change", Webhook.objects.get().pk)).content.decode()

    assert "a name of its own, let go of with the body" in content


@given(hostile("tochka_incoming"))
def test_whatever_comes_is_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(InvalidDelivery, TurnedAway):  # and nothing else
        assert isinstance(tochka.read(body), Credit | Ignored)
