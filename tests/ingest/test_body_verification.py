"""Verification of webhooks against their stored bodies."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db.models import Case, F, Value, When

from ingest.banks.events import CreditEvent
from ingest.banks.registry import read_stored
from ingest.body_verification import verify_bodies
from ingest.models import OperationAlias, Webhook
from ingest.reconciliation import reconcile
from ledger.models import Organization
from ledger.verification import verify
from tests.corruption import rolled_back, unconstrained_tables
from tests.factories import IVANOV, ROMASHKA, VASILEK, make_webhook, terms
from tests.ingest.banks.conftest import load_sample
from worker import applying

pytestmark = pytest.mark.django_db(transaction=True)


def found() -> list[tuple[object, ...]]:
    return [
        (drift.what, drift.inn, drift.expected, drift.found) for drift in verify_bodies(lambda *_: None, 0)
    ]


@pytest.fixture
def webhooks() -> Iterator[Any]:
    webhook = make_webhook(terms(100_00))
    with unconstrained_tables():
        yield Webhook.objects.filter(pk=webhook.pk)


def test_changed_term_is_drift(webhooks: Any, subtests: pytest.Subtests) -> None:
    assert found() == []
    for changed, drift in (
        ({"payer_inn": IVANOV}, ("inn", IVANOV, ROMASHKA, IVANOV)),
        ({"amount_kopecks": 1}, ("amount_kopecks", ROMASHKA, 100_00, 1)),
        ({"document_number": "pay-328"}, ("document_number", ROMASHKA, "PAY-328", "pay-328")),
    ):
        with subtests.test(**changed), rolled_back():
            webhooks.update(**changed)
            assert found() == [drift]
    for name, value in (
        ("document_date", F("document_date") + Value(timedelta(days=2))),
        ("operation_id", terms().operation_id),
    ):
        with subtests.test(name), rolled_back():
            webhooks.update(**{name: value})
            assert [what for what, *_ in found()] == [name]
    outgoing = json.dumps(load_sample("tbank_debit")).encode()
    for source, body in (("bank", b"{}"), ("bank", b"garbage"), ("tbank", outgoing)):
        with subtests.test(body), rolled_back():
            webhooks.update(source=source, body=body)
            assert [what for what, *_ in found()] == ["body"]


def test_swapped_organizations_are_drift() -> None:
    for webhooks in (terms(100_00), terms(1_00, inn=VASILEK)):
        make_webhook(webhooks)
    applying.apply_batch(10)
    swapped = {
        name: Case(When(**{name: ROMASHKA}, then=Value(VASILEK)), default=Value(ROMASHKA))
        for name in ("inn", "payer_inn")
    }
    with unconstrained_tables():
        Organization.objects.update(inn=swapped["inn"])
        Webhook.objects.update(payer_inn=swapped["payer_inn"])

        assert [*verify()] == []
        assert [(drift.what, drift.expected, drift.found) for drift in reconcile()] == [
            ("inn", ROMASHKA, VASILEK),
            ("inn", VASILEK, ROMASHKA),
        ]


def test_other_operation_id_of_the_same_bank_reference_is_no_drift() -> None:
    """The bank's reference keeps its first operation id, also once the adapter derives another one."""
    event = read_stored("tbank", body := json.dumps(load_sample("tbank_transaction")).encode())
    assert isinstance(event, CreditEvent)
    assert event.bank_reference
    webhook = make_webhook(replace(event.terms, operation_id=uuid4()), source="tbank", body=body)
    assert [what for what, *_ in found()] == ["operation_id"]

    OperationAlias.objects.create(alias=event.bank_reference.alias, operation_id=webhook.operation_id)

    assert found() == []


def test_emptied_body_is_skipped(webhooks: Any) -> None:
    webhooks.update(body=b"", amount_kopecks=1)
    assert found() == []


def test_date_read_in_another_time_zone_is_no_drift(webhooks: Any) -> None:
    webhooks.update(document_date=F("document_date") + Value(timedelta(hours=3)))
    assert found() == []
