import contextlib
import json
from functools import partial
from uuid import NAMESPACE_URL, uuid5

import pytest
from django.test import Client
from hypothesis import given
from pytest_django import Settings

from ingest.banks import tochka
from ingest.banks.events import BankEvent, UnrecognizedEvent
from ingest.exceptions import NotAuthorized
from ingest.models import (
    ConflictingDelivery,
    DeliveryRecord,
    IgnoredDelivery,
    UnrecognizedDelivery,
    Webhook,
)
from ingest.reconciliation import reconcile
from ledger.models import Payment
from ledger.verification import verify
from tests.admin_client import admin_url, changelist_rows, superuser_client
from tests.factories import ROMASHKA, SUSPENSE, VASILEK, balances
from tests.ingest.banks.conftest import Deliver, Event, apply_received, load_sample
from tests.ingest.banks.fuzzed_bodies import fuzzed_body
from tests.markers import every_database, sqlite_run_only

pytestmark = [pytest.mark.django_db(transaction=True), sqlite_run_only]
INCOMING, SBP_B2B = partial(load_sample, "tochka_incoming"), partial(load_sample, "tochka_sbp_b2b")


def test_namespace_is_derived_from_the_banks_url() -> None:
    assert uuid5(NAMESPACE_URL, "https://tochka.com/") == tochka.NAMESPACE


@every_database
def test_incoming_payment_credits_the_payer_once(from_tochka: Deliver) -> None:
    event = load_sample("tochka_incoming")

    assert from_tochka(event) == (200, "success")
    assert from_tochka(event) == (200, "already processed")
    apply_received()

    assert balances() == {ROMASHKA: 40_00}
    payment = Payment.objects.get()
    assert payment.operation_id == uuid5(tochka.NAMESPACE, "cbs-tb-92-545278493")
    assert payment.document_number == "328"
    assert payment.document_date.isoformat() == "2024-04-27T00:00:00+00:00"
    assert Webhook.objects.get().source == "tochka"
    assert not [*verify(), *reconcile()]


def test_changed_webhook_is_drift_independent_of_configured_keys(
    from_tochka: Deliver, settings: Settings
) -> None:
    from_tochka(load_sample("tochka_incoming"))
    settings.ENDPOINT_AUTH = {}
    Webhook.objects.update(amount_kopecks=1)

    assert [(drift.what, drift.expected, drift.found) for drift in reconcile()] == [
        ("amount_kopecks", 40_00, 1)
    ]

    settings.TOCHKA_CUSTOMER_CODES = []  # another customer's event is skipped
    assert not [*reconcile()]


@every_database
def test_redelivery_with_another_amount_is_a_conflict(from_tochka: Deliver) -> None:
    from_tochka(load_sample("tochka_incoming"))

    assert from_tochka(load_sample("tochka_incoming", SideRecipient={"amount": "41.0"})) == (
        200,
        "already processed",
    )
    apply_received()

    assert balances() == {ROMASHKA: 40_00}
    conflict = ConflictingDelivery.objects.get()
    assert (conflict.difference, conflict.source) == ("amount_kopecks", "tochka")


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (load_sample("tochka_outgoing"), "webhookType outgoingPayment is not credited"),
        (
            load_sample("tochka_outgoing", webhookType="ОUTGOINGРАYMЕNТ"),
            "webhookType ОUTGOINGРАYMЕNТ is not credited",
        ),
        (INCOMING(SideRecipient={"currency": "CNY"}), "currency CNY is not credited"),
        (INCOMING(SideRecipient={"currency": 840}), "currency 840 is not credited"),
        (load_sample("tochka_documented"), "the sample of the bank's documentation: a test"),
        (SBP_B2B(qrcId="AS10006DPRTEFPFS9HJ9SQSDSVRHJD3L"), "the sample of the bank's documentation: a test"),
        (
            SBP_B2B(webhookType="acquiringInternetPayment", status="AUTHORIZED"),
            "acquiringInternetPayment: the buyer's money is only reserved",
        ),
    ],
    ids=range(7),
)
def test_event_that_is_no_payment_is_answered_200_and_recorded(
    from_tochka: Deliver, event: Event, reason: str
) -> None:
    assert from_tochka(event) == (200, "ignored")

    recorded = IgnoredDelivery.objects.get()
    assert (recorded.reason, recorded.source) == (reason, "tochka")
    assert not Webhook.objects.exists()


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (INCOMING(webhookType="x" * 300), f"webhookType: '{'x' * 64}' is not known"),
        (INCOMING(webhookType=1), "webhookType: must be a string, got a number"),
        (INCOMING(webhookType=None), "webhookType: must be a string, got null"),
        (
            SBP_B2B(),
            "webhookType: incomingSbpB2BPayment names no payer's INN, so there is no balance to credit",
        ),
        (
            SBP_B2B(webhookType="acquiringInternetPayment", status="APPROVED"),
            "webhookType: acquiringInternetPayment names no payer's INN, so there is no balance to credit",
        ),
        ({"webhookType": "incomingPayment", "customerCode": "300123123"}, "SideRecipient: is missing"),
        (INCOMING(SidePayer=[]), "SidePayer: must be an object, got an array"),
        (INCOMING(SidePayer=None), "SidePayer: must be an object, got null"),
        (
            INCOMING(SidePayer={"currency": "USD"}),
            "SidePayer.currency: is USD, and the recipient's are rubles",
        ),
        (INCOMING(SidePayer={"currency": "RUBLA"}), "SidePayer.currency: 'RUBLA' is not known"),
        (INCOMING(SideRecipient={"currency": None}), "SideRecipient.currency: must be a string, got null"),
        (INCOMING(SidePayer={"inn": 7}), "SidePayer.inn: must be a string of 10 or 12 digits, got a number"),
        (
            INCOMING(SideRecipient={"amount": "-1"}),
            "SideRecipient.amount: must be a number, or a string of digits with at most one point",
        ),
        (INCOMING(paymentId=""), "paymentId: must have 1 to 64 characters"),
        (INCOMING(date="27.04.2024"), "date: must be an ISO 8601 date and time"),
        (INCOMING(date=None), "date: must be a string, got null"),
        (INCOMING(documentNumber=""), "documentNumber: must have 1 to 255 characters"),
    ],
    ids=range(17),
)
def test_possible_money_that_cannot_be_credited_is_unrecognized(
    from_tochka: Deliver, event: Event, reason: str
) -> None:
    assert from_tochka(event) == (200, "unrecognized")

    recorded = UnrecognizedDelivery.open_deliveries().get()
    assert (recorded.reason, recorded.source) == (reason, "tochka")
    assert not Webhook.objects.exists()


@pytest.mark.parametrize(
    "changed",
    [
        {"webhookType": "inсomingPаyment"},  # with a Cyrillic с and а
        {"webhookType": "INCOMINGPAYMENT "},
        {"SidePayer": {"currency": "RUR"}, "SideRecipient": {"currency": "643"}},
        {"SidePayer": {"currency": 810}, "SideRecipient": {"currency": "Руб"}},
        {"documentNumber": 328},
        {"customerCode": 300123123},
    ],
    ids=str,
)
def test_known_word_in_another_spelling_credits_the_same_payment(
    from_tochka: Deliver, changed: Event
) -> None:
    assert from_tochka(INCOMING(**changed)) == (200, "success")
    assert from_tochka(INCOMING()) == (200, "already processed")

    assert not ConflictingDelivery.objects.exists()


def test_body_that_is_no_token_is_denied() -> None:
    answer = Client().post(
        "/api/webhook/tochka/", load_sample("tochka_incoming"), content_type="application/json"
    )

    assert answer.status_code == 401
    assert not Webhook.objects.exists()


@pytest.mark.parametrize(
    "event",
    [
        INCOMING(),
        INCOMING(SidePayer={"currency": "USD"}),
        INCOMING(SidePayer={"inn": "0"}),
        INCOMING(SidePayer=None),
        INCOMING(webhookType="unheard-of"),
        INCOMING(webhookType=None),
        load_sample("tochka_outgoing"),
        load_sample("tochka_documented"),
        SBP_B2B(),
        {},
    ],
    ids=range(10),
)
@pytest.mark.parametrize("code", ["300999999", "", None, 0, ["300123123"], {}])
def test_event_of_another_customer_is_denied(from_tochka: Deliver, event: Event, code: object) -> None:
    """Any customer of the bank can obtain its signature on their own events."""
    assert from_tochka(event | {"customerCode": code}) == (401, "not authorized")

    assert not any(model.objects.exists() for model in (Webhook, *DeliveryRecord.__subclasses__()))


@pytest.mark.parametrize(
    "payload",
    [
        b"[]",
        b"{",
        b"\xff",
        b"null",
        b'{"webhookType": "incomingPayment"}',
        b'{"customerCode": "300999999", "customerCode": "300123123"}',
        b'{"customerCode": "300123123", "customerCode": "300999999"}',
    ],
)
def test_payload_without_customer_code_is_denied(payload: bytes) -> None:
    with pytest.raises(NotAuthorized):
        tochka.read(payload)


def test_payload_with_repeated_field_is_unrecognized() -> None:
    event = json.dumps(INCOMING())[:-1].encode() + b', "date": "2024-04-28"}'

    assert tochka.read(event) == UnrecognizedEvent("date: is given twice")


def test_endpoint_without_credentials_is_answered_503(settings: Settings) -> None:
    settings.ENDPOINT_AUTH = {}
    response = Client().post("/api/webhook/tochka/", b"", content_type="text/plain")

    assert (response.status_code, response.has_header("Retry-After")) == (503, True)
    assert not UnrecognizedDelivery.objects.exists()


@every_database
def test_conflict_is_displayed_after_its_customer_code_is_removed(
    from_tochka: Deliver, settings: Settings
) -> None:
    event = load_sample("tochka_incoming")
    from_tochka(event)
    from_tochka(event | {"documentNumber": "another"})
    admin_client, webhook = superuser_client(), Webhook.objects.get()
    webhook_page = admin_url(Webhook, "change", webhook.pk)
    assert "another ≠" in admin_client.get(webhook_page).content.decode()

    settings.TOCHKA_CUSTOMER_CODES = []

    answer = admin_client.get(webhook_page)
    assert answer.status_code == 200
    assert "different content" in answer.content.decode()


@every_database
def test_payment_is_found_by_either_id_and_shows_both(from_tochka: Deliver) -> None:
    from_tochka(load_sample("tochka_incoming"))
    from_tochka(load_sample("tochka_incoming", paymentId="other", SidePayer={"inn": VASILEK}))
    webhook = Webhook.objects.get(payer_inn=ROMASHKA)
    admin_client = superuser_client()

    assert changelist_rows(admin_client, Webhook, q="cbs-tb-92-545278493") == [str(webhook)]
    assert changelist_rows(admin_client, Webhook, q=str(webhook.operation_id)) == [str(webhook)]
    content = admin_client.get(admin_url(Webhook, "change", webhook.pk)).content.decode()
    assert "cbs-tb-92-545278493" in content
    assert "&quot;webhookType&quot;: &quot;incomingPayment&quot;" in content  # out of the token


def test_page_says_that_bank_reference_was_deleted_with_the_body(from_tochka: Deliver) -> None:
    from_tochka(load_sample("tochka_incoming"))
    Webhook.objects.update(body=b"")

    content = superuser_client().get(admin_url(Webhook, "change", Webhook.objects.get().pk)).content.decode()

    assert "unknown: deleted with the body" in content


@every_database
@given(fuzzed_body("tochka_incoming"))
def test_fuzzed_body_is_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(NotAuthorized):  # and nothing else
        assert isinstance(tochka.read(body), BankEvent)


@every_database
@pytest.mark.parametrize("inn", [None, "", " ", "0" * 10, "0" * 12, "12345"])
def test_payer_without_an_inn_is_posted_to_suspense(from_tochka: Deliver, inn: str | None) -> None:
    event = INCOMING(SidePayer={"inn": inn})

    assert [from_tochka(event) for _ in range(2)] == [(200, "success"), (200, "already processed")]

    apply_received()
    assert balances() == {SUSPENSE: 40_00}
    assert not [*verify(), *reconcile()]


def test_unknown_account_has_the_common_suspense_account(from_tochka: Deliver) -> None:
    from_tochka(INCOMING(SidePayer={"inn": None}, SideRecipient={"account": None}))

    apply_received()
    assert balances() == {"@unknown": 40_00}
