from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db.models import F, Value
from django.db.models.functions import Concat, Lower
from django.utils import timezone

from ingest.models import StatementWebhook, Webhook
from ingest.reconciliation import reconcile
from ledger.models import Organization, Payment
from ledger.verification import Drift, verify
from tests.concurrency import run_concurrently
from tests.corruption import raw_delete, rolled_back, unconstrained_tables
from tests.factories import IVANOV, ROMASHKA, VASILEK, make_webhook, post_payments, terms
from worker import applying

committed = pytest.mark.django_db(transaction=True)
FIRST = terms(100_00, document_number="PAY-1")
SECOND = terms(20_50, document_number="PAY-2")
THIRD = terms(7_00, inn=VASILEK, document_number="PAY-3")


@pytest.fixture
def ledger() -> None:
    """Create three applied webhooks with payments, and one received, failed and dismissed webhook each."""
    for payment_terms in (FIRST, SECOND, THIRD):
        make_webhook(payment_terms, status=Webhook.Status.APPLIED, applied_at=timezone.now())
    post_payments(FIRST, SECOND, THIRD)
    for status in (Webhook.Status.RECEIVED, Webhook.Status.FAILED, Webhook.Status.DISMISSED):
        make_webhook(status=status)


@pytest.fixture
def unconstrained_ledger(ledger: None) -> Iterator[None]:
    with unconstrained_tables():
        yield


def webhook() -> Any:
    return Webhook.objects.filter(operation_id=SECOND.operation_id)


def payment() -> Any:
    return Payment.objects.filter(operation_id=SECOND.operation_id)


@pytest.mark.django_db
def test_consistent_inbox_and_ledger_have_no_drift(ledger: None) -> None:
    rows: list[tuple[str, int]] = []

    assert list(reconcile(lambda what, count: rows.append((what, count)))) == []

    assert rows == [("payments against the inbox", 3), ("webhooks", 6), ("bodies", 6)]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("kopecks", "statement_status", "drifts"),
    [(20_50, "applied", []), (20_49, "applied", ["merged"]), (20_50, "failed", ["merged"])],
)
def test_merged_webhook_has_an_applied_one_from_a_statement(
    kopecks: int, statement_status: str, drifts: list[str], ledger: None
) -> None:
    late = make_webhook(terms(20_50), status=Webhook.Status.MERGED)
    assert [drift.what for drift in reconcile()] == ["merged"]
    made = webhook().get() if statement_status == "applied" else make_webhook(status=statement_status)
    StatementWebhook.objects.create(
        webhook=made,
        inn=late.payer_inn,
        kopecks=kopecks,
        digits_key="",
        day=late.document_date,
        booked_on=late.document_date,
        merged=late,
    )

    assert [drift.what for drift in reconcile()] == drifts


@committed
def test_applied_webhook_with_a_conflicting_delivery_is_no_drift() -> None:
    payment_terms = terms()
    make_webhook(payment_terms)
    make_webhook(terms(1, operation_id=payment_terms.operation_id))  # a conflicting delivery is no webhook
    applying.apply_batch(10)

    assert Webhook.objects.get().status == Webhook.Status.APPLIED
    assert [*verify(), *reconcile()] == []


# Each corruption, and the drift that it causes: what, inn, expected, found.
CORRUPTIONS: dict[str, tuple[Callable[[], object], tuple[object, ...]]] = {
    "payment without webhook": (lambda: raw_delete(webhook()), ("webhook", ROMASHKA, "applied", None)),
    "received webhook with a payment": (
        lambda: webhook().update(status="received"),
        ("webhook", ROMASHKA, "applied", "received"),
    ),
    "failed webhook with a payment": (
        lambda: webhook().update(status="failed"),
        ("webhook", ROMASHKA, "applied", "failed"),
    ),
    "dismissed webhook with a payment": (
        lambda: webhook().update(status="dismissed"),
        ("webhook", ROMASHKA, "applied", "dismissed"),
    ),
    "webhook with another amount": (
        lambda: webhook().update(amount_kopecks=20_51),
        ("amount_kopecks", ROMASHKA, 20_51, 20_50),
    ),
    "webhook with another INN": (
        lambda: webhook().update(payer_inn=IVANOV),
        ("inn", ROMASHKA, IVANOV, ROMASHKA),
    ),
    "webhook with another document": (
        lambda: webhook().update(document_number="PAY-22"),
        ("document_number", ROMASHKA, "PAY-22", "PAY-2"),
    ),
    "document in another case": (
        lambda: webhook().update(document_number=Lower("document_number")),
        ("document_number", ROMASHKA, "pay-2", "PAY-2"),
    ),
    "document with a blank behind": (
        lambda: webhook().update(document_number=Concat(F("document_number"), Value(" "))),
        ("document_number", ROMASHKA, "PAY-2 ", "PAY-2"),
    ),
    "webhook with another date": (
        lambda: webhook().update(document_date=SECOND.document_date.replace(microsecond=1)),
        ("document_date", ROMASHKA, "2024-04-27 21:00:00.000001+00:00", "2024-04-27 21:00:00+00:00"),
    ),
    "payment of another organization": (
        lambda: payment().update(organization=Organization.objects.get(inn=VASILEK)),
        ("inn", VASILEK, ROMASHKA, VASILEK),
    ),
    "payment of another operation": (
        lambda: payment().update(operation_id=terms().operation_id),
        ("webhook", ROMASHKA, "applied", None),
    ),
}


def found() -> list[tuple[object, ...]]:
    return [(d.what, d.inn, d.expected, d.found) for d in reconcile()]


@committed
def test_each_corruption_is_the_first_drift(unconstrained_ledger: None, subtests: pytest.Subtests) -> None:
    assert found() == []
    for name, (corrupt, drift) in CORRUPTIONS.items():
        with subtests.test(name), rolled_back():
            corrupt()
            assert found()[0] == drift


@committed
def test_applied_webhook_without_payment_is_drift(unconstrained_ledger: None) -> None:
    raw_delete(payment())

    expected = f"the payment of webhook {webhook().get().pk}"
    assert list(reconcile()) == [
        Drift(
            "payment",
            "an applied webhook has a payment",
            expected,
            None,
            inn=ROMASHKA,
            operation_id=SECOND.operation_id,
        )
    ]


@pytest.mark.django_db
def test_payment_without_webhook_that_failed_a_webhook_is_drift() -> None:
    """No webhook explains the earlier payment: the bank's only delivery has other terms."""
    payment_terms = terms()
    post_payments(terms(1, operation_id=payment_terms.operation_id))
    make_webhook(payment_terms)
    applying.apply_batch(10)

    assert Webhook.objects.get().last_error == applying.CONFLICT
    assert found() == [("webhook", ROMASHKA, "applied", "failed")]


@committed
@pytest.mark.parametrize("webhooks", [60, pytest.param(200, marks=pytest.mark.long)])
def test_concurrent_posting_is_no_drift(webhooks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With small pages, much is posted between any two of them."""
    monkeypatch.setattr("ledger.verification.ROWS_PER_PAGE", 7)
    monkeypatch.setattr("ledger.verification.ORGANIZATIONS_PER_PAGE", 2)
    inns = [ROMASHKA, VASILEK, IVANOV, *(f"{number:010}" for number in range(20))]
    for number in range(webhooks):
        make_webhook(terms(number + 1, inn=inns[number % len(inns)]))
    drifts: list[Drift] = []

    def post() -> int:
        return sum(iter(lambda: applying.apply_batch(3), 0))

    def verify_until_applied() -> int:
        rounds = 0
        while Webhook.objects.received().exists():
            drifts.extend([*verify(), *reconcile()])
            rounds += 1
        return rounds

    applied, rounds = run_concurrently([post, verify_until_applied])

    assert applied == webhooks
    assert rounds > 1
    assert drifts == []
    assert [*verify(), *reconcile()] == []
