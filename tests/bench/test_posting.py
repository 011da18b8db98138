"""Measurements with an inconsistent ledger are not valid."""

from contextlib import nullcontext

import pytest
from django.db.models import F

from bench.database import require_consistent_ledger
from bench.measures import posting
from bench.systems import InvalidRun
from ledger.models import Organization
from tests.factories import make_webhook, post_payments, terms


def drift() -> None:
    Organization.objects.update(balance_kopecks=F("balance_kopecks") + 1)


@pytest.mark.django_db(transaction=True)  # read by other sessions
def test_drift_invalidates_the_run() -> None:
    payment = terms(20_50)
    make_webhook(payment, status="applied")
    post_payments(payment)
    require_consistent_ledger()

    drift()

    with pytest.raises(InvalidRun, match=r"expected 20,50.*, found 20,51"):
        require_consistent_ledger()


@pytest.mark.usefixtures("sequences")
def test_posting_yields_no_measurement_after_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = posting.insert_bare

    def and_drift(webhooks: int, organizations: int) -> float:
        speed = honest(webhooks, organizations)
        drift()
        return speed

    monkeypatch.setattr(posting, "worker_stack", lambda environment: nullcontext())
    monkeypatch.setattr(posting, "send_tasks", lambda *_: 1.0)
    size = posting.Size(rounds=1, webhooks=10, tasks=2)
    assert [measurement.unit for measurement in posting.compare(size, 1, print)] == ["webhooks/s"] * 3

    monkeypatch.setattr(posting, "insert_bare", and_drift)
    with pytest.raises(InvalidRun):
        list(posting.compare(size, 1, print))
