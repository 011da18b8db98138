"""How much waits in suspense, since when, and what it costs to know."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from ledger import corrections, queries
from ledger.models import Organization, Payment
from ledger.suspense import NOTHING, Unassigned, unassigned
from ledger.terms import PaymentTerms
from tests.factories import ROMASHKA, SUSPENSE, VASILEK, make_organizations, post_payments, terms
from tests.row_counts import count_rows_read, count_vm_instructions

pytestmark = pytest.mark.django_db
UNKNOWN = "@unknown"


def suspended(*kopecks: int, inn: str = SUSPENSE) -> list[PaymentTerms]:
    payments = [terms(each, inn=inn) for each in kopecks]
    post_payments(*payments)
    make_organizations(ROMASHKA, VASILEK)
    return payments


def assign(payment: PaymentTerms) -> None:
    corrections.correct(payment.operation_id, corrections.assignment(VASILEK))


def test_nothing_waits_in_an_empty_ledger() -> None:
    assert unassigned() == NOTHING


def test_what_waits_is_counted_over_all_accounts() -> None:
    assigned, first, _ = suspended(1_00, 20_00, 300_00)
    suspended(4000_00, inn=UNKNOWN)
    post_payments(terms(5_00))
    assign(assigned)

    oldest = Payment.objects.get(operation_id=first.operation_id)
    assert unassigned() == Unassigned(3, 4320_00, oldest.pk, oldest.created_at)


def test_returned_payment_waits_since_its_return() -> None:
    (payment,) = suspended(7_00)
    assign(payment)
    assert unassigned() == NOTHING

    corrections.correct(payment.operation_id, corrections.return_to_suspense(payment.operation_id))

    returned = Payment.objects.latest("pk")
    assert unassigned() == Unassigned(1, 7_00, returned.pk, returned.created_at)


def test_reversed_payment_does_not_wait() -> None:
    taken_back, _ = suspended(1_00, 2_00)
    corrections.correct(taken_back.operation_id, corrections.reversal)

    assert (unassigned().count, unassigned().kopecks) == (1, 2_00)


def test_oldest_of_very_many_is_found_from_the_other_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.suspense.SCANNED_BACK_MAX", 2)
    assigned, first, *_ = suspended(1_00, 2_00, 3_00, 4_00)
    assign(assigned)

    assert unassigned().first_pk == Payment.objects.get(operation_id=first.operation_id).pk


def cost(action: object) -> int:
    assert callable(action)
    return (count_rows_read if connection.vendor == "mysql" else count_vm_instructions)(action)


def test_cost_does_not_grow_with_what_was_assigned_before() -> None:
    """Each of the payments assigned before costs one index entry, its reversal's, and no row."""

    def cost_after(assigned: int) -> int:
        for payment in suspended(*[1_00] * assigned):
            assign(payment)
        (waiting,) = suspended(9_00)
        found = cost(unassigned)
        assign(waiting)
        return found

    before = cost_after(2)

    assert cost_after(20) - before <= (20 + 1) * (1 if connection.vendor == "mysql" else 8)


def test_cost_of_a_statement_ignores_reversals_of_others() -> None:
    mine, *others = [terms(1_00, inn=inn) for inn in [ROMASHKA, *[VASILEK] * 20]]
    post_payments(mine, *others)
    organization = Organization.objects.get(inn=ROMASHKA)
    corrections.correct(mine.operation_id, corrections.reversal)

    def read() -> None:
        assert queries.reversed_sum(organization, 1, 2) == 1_00

    before = cost(read)
    for other in others:
        corrections.correct(other.operation_id, corrections.reversal)

    assert cost(read) <= before + 5


def test_figures_take_two_queries_more_for_each_account() -> None:
    suspended(1_00, 2_00)
    suspended(3_00, inn=UNKNOWN)

    with CaptureQueriesContext(connection) as captured:
        unassigned()

    assert len(captured) == 1 + 2 * 2
