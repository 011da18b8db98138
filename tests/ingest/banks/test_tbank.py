import contextlib
import json
from functools import partial
from uuid import NAMESPACE_URL, UUID, uuid5

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from hypothesis import given

from ingest import inbox
from ingest.admin.search import bank_references, matching_operation_ids
from ingest.banks import tbank
from ingest.banks.events import BankEvent
from ingest.exceptions import NotJson
from ingest.models import (
    ConflictingDelivery,
    DuplicateDelivery,
    IgnoredDelivery,
    OperationAlias,
    RejectedDelivery,
    UnrecognizedDelivery,
    Webhook,
)
from ingest.reconciliation import reconcile
from ledger.verification import verify
from tests.admin_client import admin_url, changelist_rows, superuser_client
from tests.concurrency import run_concurrently
from tests.factories import ROMASHKA, VASILEK, balances
from tests.ingest.banks.conftest import TOKEN, Deliver, Event, apply_received, load_sample
from tests.ingest.banks.fuzzed_bodies import fuzzed_body
from tests.markers import every_database, sqlite_run_only
from tests.query_plans import assert_index_lookups_only, requires_mysql_explain

pytestmark = [pytest.mark.django_db(transaction=True), sqlite_run_only]
NEW, ALREADY, IGNORED = (200, "success"), (200, "already processed"), (200, "ignored")
UNRECOGNIZED = (200, "unrecognized")
NIGHTLY = "11111111-c7fc-0027-96ba-763ec56a2317"  # another operationId


def credited() -> dict[str, int]:
    apply_received()
    assert not [*verify(), *reconcile()]
    return balances()


def test_namespace_is_derived_from_the_banks_url() -> None:
    assert uuid5(NAMESPACE_URL, "https://www.tbank.ru/") == tbank.NAMESPACE


@every_database
def test_booked_credit_credits_the_payer_once(from_tbank: Deliver) -> None:
    event = load_sample("tbank_transaction")

    assert [from_tbank(event) for _ in range(3)] == [NEW, ALREADY, ALREADY]

    assert credited() == {ROMASHKA: 1450_50}
    webhook = Webhook.objects.get()
    assert (webhook.source, webhook.document_number) == ("tbank", "328")
    assert webhook.document_date.isoformat() == "2024-04-27T21:00:00+00:00"
    assert webhook.duplicate_deliveries.count() == 2
    assert not ConflictingDelivery.objects.exists()


def test_changed_webhook_is_drift(from_tbank: Deliver) -> None:
    from_tbank(load_sample("tbank_transaction"))
    Webhook.objects.update(payer_inn=VASILEK)

    assert [(drift.what, drift.expected, drift.found) for drift in reconcile()] == [
        ("inn", ROMASHKA, VASILEK)
    ]


@every_database
@pytest.mark.parametrize("order", [["authorization", "transaction"], ["transaction", "authorization"]])
def test_authorization_and_transaction_credit_once(from_tbank: Deliver, order: list[str]) -> None:
    answers = {kind: from_tbank(load_sample(f"tbank_{kind}")) for kind in order}

    assert answers == {"authorization": IGNORED, "transaction": NEW}
    assert credited() == {ROMASHKA: 1450_50}
    assert IgnoredDelivery.objects.get().reason == "operationStatus Authorization is not booked"


@every_database
@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"accountAmount": 2000}, "amount_kopecks"),
        ({"accountAmount": "1450.51", "documentNumber": "329"}, "amount_kopecks, document_number"),
        ({"documentNumber": "329"}, "document_number"),
        ({"docDate": "2024-04-28T21:00:00Z"}, "document_date"),
        ({"payer": {"inn": VASILEK}}, "inn"),
        ({"accountNumber": "40702810110011000431", "accountAmount": 1}, "amount_kopecks"),
        ({"payer": {"acct": "40702810900000000009", "inn": VASILEK}}, "inn"),
    ],
)
def test_changed_operation_is_a_conflict_and_credits_nothing(
    from_tbank: Deliver, changed: Event, difference: str
) -> None:
    from_tbank(load_sample("tbank_transaction"))

    assert from_tbank(load_sample("tbank_transaction", **changed)) == ALREADY

    assert credited() == {ROMASHKA: 1450_50}
    conflict = ConflictingDelivery.objects.get()
    assert (conflict.difference, conflict.source) == (difference, "tbank")


@every_database
def test_renamed_operation_credits_once(from_tbank: Deliver) -> None:
    from_tbank(load_sample("tbank_transaction"))
    renamed = load_sample("tbank_transaction", operationId=NIGHTLY)

    assert [from_tbank(renamed), from_tbank(renamed)] == [ALREADY, ALREADY]

    assert credited() == {ROMASHKA: 1450_50}
    assert ConflictingDelivery.objects.get().difference == "bank_reference"
    assert DuplicateDelivery.objects.count() == 1  # the second delivery with the new id is a duplicate


@every_database
def test_renamed_operation_with_other_amount_credits_once(from_tbank: Deliver) -> None:
    from_tbank(load_sample("tbank_transaction"))

    assert from_tbank(load_sample("tbank_transaction", operationId=NIGHTLY, accountAmount=99)) == ALREADY

    assert credited() == {ROMASHKA: 1450_50}
    assert ConflictingDelivery.objects.get().difference == "bank_reference, amount_kopecks"


@every_database
def test_renamed_then_changed_operation_credits_once(from_tbank: Deliver) -> None:
    from_tbank(load_sample("tbank_transaction"))
    from_tbank(load_sample("tbank_transaction", operationId=NIGHTLY))

    assert from_tbank(load_sample("tbank_transaction", operationId=NIGHTLY, documentNumber="5")) == ALREADY

    assert credited() == {ROMASHKA: 1450_50}


@every_database
def test_different_payment_orders_are_different_payments(from_tbank: Deliver) -> None:
    others = [
        {},
        {"documentNumber": "329"},
        {"docDate": "2024-04-28T21:00:00Z"},
        {"payer": {"acct": "40702810900000000009"}},
        {"accountNumber": "40702810110011000431"},
    ]
    for number, changed in enumerate(others):
        event = load_sample(
            "tbank_transaction", operationId=str(UUID(int=number)), accountAmount=1, **changed
        )
        assert from_tbank(event) == NEW

    assert credited() == {ROMASHKA: 5_00}


@every_database
def test_hundred_concurrent_deliveries_with_several_ids_credit_once(from_tbank: Deliver) -> None:
    def deliver(number: int) -> tuple[int, str]:
        event = load_sample(
            "tbank_transaction", operationId=str(UUID(int=number % 4)), accountAmount=1 + number % 3
        )
        while (answer := from_tbank(event))[0] == 503:  # the bank retries
            pass
        return answer

    answers = run_concurrently(
        [lambda number=number: [deliver(number + k) for k in range(5)] for number in range(20)]
    )

    assert [one for five in answers for one in five].count(NEW) == 1
    assert sum(credited().values()) in (1_00, 2_00, 3_00)
    assert Webhook.objects.count() == 1
    assert OperationAlias.objects.count() == 4


@every_database
def test_alias_is_rolled_back_with_its_webhook(from_tbank: Deliver, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(inbox, "insert_webhooks", fail)
        assert from_tbank(load_sample("tbank_transaction"))[0] == 503
    assert not OperationAlias.objects.exists()

    assert from_tbank(load_sample("tbank_transaction")) == NEW


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (load_sample("tbank_debit"), "typeOfOperation Debit is not credited"),
        (load_sample("tbank_dollars"), "currency 840 is not credited"),
        (load_sample("tbank_transaction", accountCurrencyDigitalCode="156"), "currency 156 is not credited"),
        (
            {"operationStatus": "Authorization", "typeOfOperation": "Credit"},
            "operationStatus Authorization is not booked",
        ),
    ],
    ids=["debit", "dollars", "yuan", "bare"],
)
def test_event_that_is_no_payment_is_answered_200_and_recorded(
    from_tbank: Deliver, event: Event, reason: str
) -> None:
    assert from_tbank(event) == IGNORED

    recorded = IgnoredDelivery.objects.get()
    assert (recorded.reason, recorded.source, recorded.client_ip) == (reason, "tbank", "127.0.0.1")
    assert not Webhook.objects.exists()
    assert not OperationAlias.objects.exists()


def without(name: str, *fields: str) -> Event:
    """Return a sample without these fields, also nested ones such as `payer.inn`."""
    event = load_sample(name)
    for field in fields:
        outer, _, inner = field.rpartition(".")
        del (event[outer] if outer else event)[inner]
    return event


BOOKED = partial(load_sample, "tbank_transaction")


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (BOOKED(operationStatus="Cancelled"), "operationStatus: 'Cancelled' is not known"),
        (BOOKED(typeOfOperation="Сrédit"), "typeOfOperation: 'Сrédit' is not known"),
        (BOOKED(typeOfOperation=""), "typeOfOperation: '' is not known"),
        (BOOKED(typeOfOperation=None), "typeOfOperation: must be a string, got null"),
        (BOOKED(typeOfOperation=1), "typeOfOperation: must be a string, got a number"),
        (BOOKED(operationStatus=True), "operationStatus: must be a string, got true or false"),
        (without("tbank_transaction", "operationStatus"), "operationStatus: is missing"),
        ({}, "operationStatus: is missing"),
        (BOOKED(accountCurrencyDigitalCode="XXX"), "accountCurrencyDigitalCode: 'XXX' is not known"),
        (BOOKED(accountCurrencyDigitalCode="643.0"), "accountCurrencyDigitalCode: '643.0' is not known"),
        (
            BOOKED(accountCurrencyDigitalCode=643.5),
            "accountCurrencyDigitalCode: must be a string or a whole number, got a number",
        ),
        (
            BOOKED(operationCurrencyDigitalCode=None),
            "operationCurrencyDigitalCode: must be a string, got null",
        ),
        (
            BOOKED(operationCurrencyDigitalCode="840"),
            "operationCurrencyDigitalCode: is 840, and the account is in rubles",
        ),
        (without("tbank_transaction", "payer"), "payer: is missing"),
        (BOOKED(payer=None), "payer: must be an object, got null"),
        (BOOKED(payer=[]), "payer: must be an object, got an array"),
        (BOOKED(payer={"inn": "770708389"}), "payer.inn: is no INN: it must have exactly 10 or 12 digits"),
        (BOOKED(payer={"inn": " 7707083893"}), "payer.inn: is no INN: it must have exactly 10 or 12 digits"),
        (
            BOOKED(payer={"inn": "７７０７０８３８９３"}),
            "payer.inn: is no INN: it must have exactly 10 or 12 digits",
        ),
        (BOOKED(payer={"inn": 7707083893}), "payer.inn: must be a string of 10 or 12 digits, got a number"),
        (
            BOOKED(payer={"inn": ["7707083893"]}),
            "payer.inn: must be a string of 10 or 12 digits, got an array",
        ),
        (BOOKED(payer={"acct": None}), "payer.acct: must be a string, got null"),
        (without("tbank_transaction", "accountNumber"), "accountNumber: is missing"),
        (without("tbank_transaction", "documentNumber"), "documentNumber: is missing"),
        (BOOKED(documentNumber=""), "documentNumber: must have 1 to 255 characters"),
        (without("tbank_transaction", "docDate"), "docDate: is missing"),
        (BOOKED(docDate=None), "docDate: must be a string, got null"),
        (BOOKED(docDate="28.04.2024"), "docDate: must be an ISO 8601 date and time"),
        (BOOKED(docDate="2024-04-27T24:00:00Z"), "docDate: is not a date that exists"),
        (without("tbank_transaction", "accountAmount"), "accountAmount: is missing"),
        (BOOKED(accountAmount=None), "accountAmount: must be a number or a string, got null"),
        (BOOKED(accountAmount=0), "accountAmount: must be greater than zero"),
        (BOOKED(accountAmount=1.005), "accountAmount: must have at most 2 decimals"),
        (BOOKED(operationId="x" * 65), "operationId: must have 1 to 64 characters"),
        (without("tbank_transaction", "operationId"), "operationId: is missing"),
        ([BOOKED()], "body: must be a JSON object"),
    ],
    ids=range(36),
)
def test_possible_money_that_cannot_be_credited_is_unrecognized(
    from_tbank: Deliver, event: Event, reason: str
) -> None:
    assert from_tbank(event) == UNRECOGNIZED

    recorded = UnrecognizedDelivery.open_deliveries().get()
    assert (recorded.reason, recorded.source, recorded.client_ip) == (reason, "tbank", "127.0.0.1")
    assert not Webhook.objects.exists()
    assert not OperationAlias.objects.exists()


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(BOOKED())[:-1].encode() + b', "operationStatus": "Authorization"}',
        json.dumps(BOOKED())[:-1].encode() + b', "x": {"a": 1, "a": 2}}',
        b'{"x": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        b'{"\\ud800": 1, "\\ud800": 2}',
        json.dumps(BOOKED(typeOfOperation="\ud800")).encode(),
        json.dumps(BOOKED(documentNumber="\udfff")).encode(),
        json.dumps(BOOKED(accountAmount="\ud800")).encode(),
        json.dumps(BOOKED(operationStatus="\0")).encode(),
        b'"a JSON string"',
        b"7",
    ],
    ids=range(10),
)
def test_unusual_json_is_unrecognized(body: bytes) -> None:
    assert post_to_tbank(body) == UNRECOGNIZED
    assert UnrecognizedDelivery.open_deliveries().count() == 1


@pytest.mark.parametrize("body", [b" ", b"{", b"\xff", b'{"accountAmount": NaN}', "{}".encode("utf-16")])
def test_body_that_is_no_json_is_answered_400_and_recorded(body: bytes) -> None:
    assert post_to_tbank(body)[0] == 400
    assert RejectedDelivery.objects.get().source == "tbank"


def post_to_tbank(body: bytes) -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    response = Client().post("/api/webhook/tbank/", body, content_type="application/json", headers=headers)
    content = json.loads(response.content)
    return response.status_code, content.get("status") or content["error"]


@pytest.mark.parametrize(
    "changed",
    [
        {"typeOfOperation": "Сredit"},  # its first letter is Cyrillic
        {"typeOfOperation": " СRЕDІТ\u200b"},
        {"typeOfOperation": "Ｃｒｅｄｉｔ"},
        {"operationStatus": "TRАNSАСTIОN"},
        {"accountCurrencyDigitalCode": 643, "operationCurrencyDigitalCode": "RUR"},
        {"accountCurrencyDigitalCode": "810", "operationCurrencyDigitalCode": "руб."},
        {"accountCurrencyDigitalCode": "₽", "operationCurrencyDigitalCode": "RUВ"},
        {"documentNumber": 328},
        {"accountAmount": "1450.50"},
    ],
    ids=str,
)
def test_known_word_in_another_spelling_credits_the_same_payment(from_tbank: Deliver, changed: Event) -> None:
    assert [from_tbank(BOOKED(**changed)), from_tbank(BOOKED())] == [NEW, ALREADY]

    assert credited() == {ROMASHKA: 1450_50}
    assert not ConflictingDelivery.objects.exists()


@pytest.mark.parametrize("changed", [{"typeOfOperation": "DЕВIТ"}, {"operationStatus": "аuthоrizаtiоn"}])
def test_ignored_event_is_recognized_in_another_spelling(from_tbank: Deliver, changed: Event) -> None:
    assert from_tbank(BOOKED(**changed)) == IGNORED


def test_delivery_without_token_is_denied() -> None:
    answer = Client().post(
        "/api/webhook/tbank/", load_sample("tbank_transaction"), content_type="application/json"
    )

    assert answer.status_code == 401


@every_database
def test_payment_is_found_by_each_of_its_ids_in_any_spelling(from_tbank: Deliver) -> None:
    event = load_sample("tbank_transaction")
    from_tbank(event)
    from_tbank(load_sample("tbank_transaction", operationId=NIGHTLY))
    from_tbank(load_sample("tbank_transaction", operationId=str(UUID(int=5)), documentNumber="5"))
    webhook = Webhook.objects.get(document_number="328")
    admin_client = superuser_client()

    for text in [event["operationId"], event["operationId"].upper(), NIGHTLY, str(webhook.operation_id)]:
        assert changelist_rows(admin_client, Webhook, q=text) == [str(webhook)]
        assert changelist_rows(admin_client, ConflictingDelivery, q=text) == ["other bank's id"]
    content = admin_client.get(admin_url(Webhook, "change", webhook.pk)).content.decode()
    assert f"{NIGHTLY}, {event['operationId']}" in content


@every_database
@requires_mysql_explain
def test_search_by_bank_reference_uses_only_indexes(from_tbank: Deliver) -> None:
    for number in range(50):
        event = load_sample(
            "tbank_transaction", operationId=str(UUID(int=number)), documentNumber=str(number)
        )
        assert from_tbank(event) == NEW

    bank_reference = str(UUID(int=7))
    assert_index_lookups_only(
        lambda: list(Webhook.objects.filter(operation_id__in=matching_operation_ids(bank_reference)))
    )
    webhook = Webhook.objects.get(document_number="7")
    assert_index_lookups_only(lambda: bank_references(webhook))


@every_database
def test_list_of_ignored_deliveries_reads_no_bodies(from_tbank: Deliver) -> None:
    from_tbank(load_sample("tbank_debit"))
    admin_client = superuser_client()

    with CaptureQueriesContext(connection) as queries:
        assert changelist_rows(admin_client, IgnoredDelivery) == ["typeOfOperation Debit is not credited"]

    assert not [each["sql"] for each in queries if '"body"' in each["sql"] or "`body`" in each["sql"]]
    content = admin_client.get(
        admin_url(IgnoredDelivery, "change", IgnoredDelivery.objects.get().pk)
    ).content.decode()
    assert "&quot;typeOfOperation&quot;: &quot;Debit&quot;" in content


@every_database
@given(fuzzed_body("tbank_transaction"))
def test_fuzzed_body_is_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(NotJson):  # and nothing else
        assert isinstance(tbank.read(body), BankEvent)


@every_database
@pytest.mark.parametrize(
    "event",
    [
        without("tbank_transaction", "payer.inn"),
        *(BOOKED(payer={"inn": inn}) for inn in (None, "", " ", "000000000000", "12345")),
    ],
)
def test_payer_without_an_inn_is_posted_to_suspense(from_tbank: Deliver, event: Event) -> None:
    assert from_tbank(event) == NEW

    assert credited() == {f"@{event['accountNumber']}": 1450_50}
