"""Generated ledgers are consistent; otherwise no measurement is valid."""

import pytest

from bench.database import require_consistent_ledger
from bench.generator import Group, enqueue, fill_ledger, inn_of_organization, write_failures
from ingest.models import RejectedDelivery, Webhook
from ledger.models import BalanceLog
from tests.factories import balances
from worker.applying import apply_batch

pytestmark = pytest.mark.usefixtures("sequences")


def test_generated_ledger_is_consistent() -> None:
    fill_ledger([Group(1, 100), Group(3, 4)])

    require_consistent_ledger()
    assert balances() == {
        inn_of_organization(1): 50_50,
        inn_of_organization(2): 10,
        inn_of_organization(3): 10,
        inn_of_organization(4): 10,
    }
    assert BalanceLog.objects.count() == Webhook.objects.count() == 112


def test_generated_backlog_can_be_applied() -> None:
    fill_ledger([Group(2, 3)])
    enqueue(5, organizations=2, first=2)

    assert apply_batch(10) == 5
    require_consistent_ledger()
    assert balances() == {
        inn_of_organization(1): 6,
        inn_of_organization(2): 6 + (1 + 2 + 3),
        inn_of_organization(3): 1 + 2,
    }


def test_generated_failures_leave_the_ledger_consistent() -> None:
    fill_ledger([Group(1, 2)])
    write_failures(3)

    require_consistent_ledger()
    assert Webhook.objects.failed().count() == RejectedDelivery.objects.count() == 3
