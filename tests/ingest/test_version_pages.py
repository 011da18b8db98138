"""Versions of operations on the admin's pages, in the verification and in retention."""

from datetime import timedelta

import pytest
from django.utils import timezone
from pytest_django import Settings

from ingest import version_storage
from ingest.inbox import Delivery
from ingest.models import OperationVersion, Webhook
from ingest.reconciliation import reconcile
from ingest.versions import DELETED
from ledger.models import Payment
from ledger.terms import PaymentTerms
from tests.admin_client import superuser_client
from tests.factories import correct, terms
from tests.payloads import payment_body
from worker import retention, tasks

pytestmark = pytest.mark.django_db(transaction=True)


def deliver(*versions: int, payment: PaymentTerms) -> None:
    for version in versions:
        version_storage.store(payment, version, Delivery(payment_body(payment, version=version)))
    tasks.apply_received()


def test_webhook_page_shows_its_versions() -> None:
    payment = terms(100_00)
    deliver(3, DELETED, 1, 5, payment=payment)

    page = (
        superuser_client().get(f"/admin/ingest/webhook/{Webhook.objects.get().pk}/change/").content.decode()
    )

    assert "Version “deleted”: deletion by the bank" in page
    assert "Version 1: older than a known version: not posted" in page
    assert "Version 5: correction by the bank" in page


def test_list_shows_a_remembered_deletion_whose_operation_has_no_webhook() -> None:
    deliver(DELETED, payment=terms(100_00))
    client = superuser_client()

    page = client.get("/admin/ingest/operationversion/?decision__exact=remembered").content.decode()
    assert "deletion of an unknown operation" in page

    detail = client.get(f"/admin/ingest/operationversion/{OperationVersion.objects.get().pk}/change/")
    assert "9223372036854775807" in detail.content.decode()


def test_correction_outside_the_versions_is_drift() -> None:
    payment = terms(100_00)
    deliver(1, 2, payment=payment)
    assert not [*reconcile()]

    correct(payment)  # without an operator action

    [drift] = reconcile()
    assert drift.rule == "an operation stands as its last version left it"
    assert Payment.objects.count() == 2


def test_retention_empties_bodies_of_versions_that_are_not_due(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    settings.RAW_BODY_RETENTION_DAYS = 365
    payment = terms(100_00)
    deliver(1, 2, payment=payment)
    version_storage.store(payment, 3, Delivery(b"due"))
    later = timezone.now() + timedelta(days=4000)
    monkeypatch.setattr(retention.clock, "database_now", lambda: later)

    retention.prune(lambda *_: None, full_scan=True)

    bodies = OperationVersion.objects.order_by("position").values_list("body", flat=True)
    assert [bytes(body) for body in bodies] == [b"", b"", b"due"]
