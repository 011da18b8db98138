"""What a webhook says is compared with the body that its bank sent."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import Case, F, Value, When

from ingest.body_verification import verify_bodies
from ingest.models import Webhook
from ingest.reconciliation import reconcile
from ledger.models import Organization
from ledger.verification import verify
from tests.corruption import rolled_back, unconstrained_tables
from tests.factories import IVANOV, ROMASHKA, VASILEK, make_webhook, terms
from worker import applying

pytestmark = pytest.mark.django_db(transaction=True)


def found() -> list[tuple[object, ...]]:
    return [
        (drift.what, drift.inn, drift.expected, drift.found) for drift in verify_bodies(lambda *_: None, 0)
    ]


@pytest.fixture
def told() -> Iterator[Any]:
    webhook = make_webhook(terms(100_00))
    with unconstrained_tables():
        yield Webhook.objects.filter(pk=webhook.pk)


def test_each_changed_term_is_drift(told: Any, subtests: pytest.Subtests) -> None:
    assert found() == []
    for changed, drift in (
        ({"payer_inn": IVANOV}, ("inn", IVANOV, ROMASHKA, IVANOV)),
        ({"amount_kopecks": 1}, ("amount_kopecks", ROMASHKA, 100_00, 1)),
        ({"document_number": "pay-328"}, ("document_number", ROMASHKA, "PAY-328", "pay-328")),
    ):
        with subtests.test(**changed), rolled_back():
            told.update(**changed)
            assert found() == [drift]
    for name, value in (
        ("document_date", F("document_date") + Value(timedelta(days=2))),
        ("operation_id", terms().operation_id),
    ):
        with subtests.test(name), rolled_back():
            told.update(**{name: value})
            assert [what for what, *_ in found()] == [name]
    for body in (b"{}", b"garbage"):
        with subtests.test(body), rolled_back():
            told.update(body=body)
            assert [what for what, *_ in found()] == ["body"]


def test_two_organizations_that_were_swapped_with_their_webhooks_are_drift() -> None:
    for told in (terms(100_00), terms(1_00, inn=VASILEK)):
        make_webhook(told)
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


def test_a_body_that_retention_emptied_says_nothing(told: Any) -> None:
    told.update(body=b"", amount_kopecks=1)
    assert found() == []


def test_a_date_read_in_a_former_time_zone_is_no_drift(told: Any) -> None:
    told.update(document_date=F("document_date") + Value(timedelta(hours=3)))
    assert found() == []
