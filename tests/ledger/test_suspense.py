"""Money whose payer names no INN waits in suspense until it is assigned."""

from collections.abc import Callable
from uuid import UUID, uuid4

import pytest
from django.db import IntegrityError, transaction
from django.test import Client

from ledger import corrections, posting
from ledger.corrections import last_payment
from ledger.exceptions import CorrectionRefused
from ledger.models import Organization, Payment
from ledger.posting import create_organizations
from ledger.terms import PaymentTerms
from ledger.verification import verify
from tests.admin_client import superuser_client
from tests.concurrency import run_concurrently
from tests.factories import (
    IVANOV,
    MIDNIGHT_IN_MOSCOW,
    ROMASHKA,
    SUSPENSE,
    VASILEK,
    balances,
    make_organizations,
    post_payments,
    terms,
)
from tests.ledger.test_posting import entries_of

pytestmark = pytest.mark.django_db
committed = pytest.mark.django_db(transaction=True)


def assign(operation_id: UUID, inn: str) -> None:
    corrections.correct(operation_id, corrections.assignment(inn))


def unassign(operation_id: UUID) -> None:
    corrections.correct(operation_id, corrections.return_to_suspense(operation_id))


def reverse(operation_id: UUID) -> None:
    corrections.correct(operation_id, corrections.reversal)


def replace_terms(operation_id: UUID, other: PaymentTerms) -> None:
    corrections.correct(operation_id, corrections.replacement(other))


def in_suspense(kopecks: int = 100_50) -> UUID:
    payment = terms(kopecks, inn=SUSPENSE)
    post_payments(payment)
    make_organizations(ROMASHKA, VASILEK)
    return payment.operation_id


def test_assigned_payment_moves_whole_to_the_organization() -> None:
    operation_id = in_suspense()

    assign(operation_id, VASILEK)

    assert balances() == {SUSPENSE: 0, VASILEK: 100_50, ROMASHKA: 0}
    assert [amount for _, amount, _ in entries_of(SUSPENSE)] == [100_50, -100_50]
    assert last_payment(operation_id).terms.document_date == MIDNIGHT_IN_MOSCOW
    assert list(verify()) == []


def test_undone_assignment_is_back_in_suspense_and_can_be_assigned_again() -> None:
    operation_id = in_suspense()
    assign(operation_id, VASILEK)

    unassign(operation_id)
    assert balances() == {SUSPENSE: 100_50, VASILEK: 0, ROMASHKA: 0}
    assign(operation_id, VASILEK)

    assert balances() == {SUSPENSE: 0, VASILEK: 100_50, ROMASHKA: 0}
    assert list(verify()) == []


REFUSED: dict[str, Callable[[UUID], object]] = {
    "unknown operation": lambda _: assign(uuid4(), VASILEK),
    "undo before assignment": unassign,
    "assignment to suspense": lambda operation_id: assign(operation_id, "@unknown"),
    "assigned twice": lambda operation_id: [assign(operation_id, VASILEK), assign(operation_id, VASILEK)],
    "reversed twice": lambda operation_id: [reverse(operation_id), reverse(operation_id)],
    "undone twice": lambda operation_id: [
        assign(operation_id, VASILEK),
        unassign(operation_id),
        unassign(operation_id),
    ],
    "assigned after a reversal": lambda operation_id: [reverse(operation_id), assign(operation_id, VASILEK)],
    "undone after a reversal": lambda operation_id: [
        assign(operation_id, VASILEK),
        reverse(operation_id),
        unassign(operation_id),
    ],
    "replaced by the same terms": lambda operation_id: replace_terms(
        operation_id, last_payment(operation_id).terms
    ),
    "a reversal": lambda operation_id: [
        reverse(operation_id),
        reverse(Payment.objects.get(kind="reversal").operation_id),
    ],
}


@pytest.mark.parametrize("correct", REFUSED.values(), ids=REFUSED.keys())
def test_correction_without_sense_is_refused(correct: Callable[[UUID], object]) -> None:
    operation_id = in_suspense()
    make_organizations("@unknown")

    with pytest.raises(CorrectionRefused):
        correct(operation_id)

    assert sum(balances().values()) in {100_50, 0}
    assert list(verify()) == []


def test_preview_shows_both_balances_and_changes_nothing() -> None:
    operation_id = in_suspense(100_50)

    planned = corrections.plan(operation_id, corrections.assignment(VASILEK))

    assert planned.balances() == [(VASILEK, 0, 100_50), (SUSPENSE, 100_50, 0)]
    assert entries_of(SUSPENSE) == [(1, 100_50, 100_50)]
    assert corrections.correct(operation_id, corrections.assignment(VASILEK)) == planned


def test_reversed_operation_can_be_posted_again() -> None:
    operation_id = in_suspense()
    reverse(operation_id)

    replace_terms(operation_id, terms(100_50, inn=SUSPENSE))

    assert [amount for _, amount, _ in entries_of(SUSPENSE)] == [100_50, -100_50, 100_50]


def test_interrupted_assignment_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    operation_id = in_suspense()

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(posting, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        assign(operation_id, VASILEK)

    assert entries_of(SUSPENSE) == [(1, 100_50, 100_50)]


@committed
def test_assignment_creates_the_organization() -> None:
    payment = terms(inn=SUSPENSE)
    post_payments(payment)

    assign(payment.operation_id, IVANOV)

    assert balances() == {SUSPENSE: 0, IVANOV: 100_00}


@committed
def test_concurrent_assignments_move_the_payment_once() -> None:
    payment = terms(inn=SUSPENSE)
    post_payments(payment)
    make_organizations(ROMASHKA, VASILEK)

    def try_assign(inn: str) -> str:
        try:
            assign(payment.operation_id, inn)
        except CorrectionRefused:
            return "refused"
        return inn

    results = run_concurrently([lambda: try_assign(ROMASHKA), lambda: try_assign(VASILEK)])

    [winner] = [result for result in results if result != "refused"]
    assert balances() == {SUSPENSE: 0, ROMASHKA: 0, VASILEK: 0} | {winner: 100_00}
    assert list(verify()) == []


@committed
def test_kind_follows_from_the_key() -> None:
    create_organizations([ROMASHKA, SUSPENSE])

    kinds = dict(Organization.objects.values_list("inn", "kind"))
    assert kinds == {ROMASHKA: "organization", SUSPENSE: "suspense"}


@pytest.mark.parametrize(("inn", "kind"), [(ROMASHKA, "suspense"), (SUSPENSE, "organization")])
def test_database_refuses_the_other_kind(inn: str, kind: str) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        Organization.objects.create(inn=inn, kind=kind, opened_at=MIDNIGHT_IN_MOSCOW)


def test_suspense_is_not_reachable_by_the_read_api(client: Client) -> None:
    in_suspense()

    for path in (
        f"/api/organizations/{SUSPENSE}/balance/",
        f"/api/organizations/{SUSPENSE}/balance/history/",
    ):
        assert client.get(path).status_code == 404


def test_page_of_unassigned_payments_shows_what_waits() -> None:
    waiting, assigned, other = in_suspense(1_11), in_suspense(2_22), terms(3_33)
    post_payments(other)
    assign(assigned, VASILEK)

    page = superuser_client().get("/admin/ledger/unassignedpayment/").content.decode()

    assert str(waiting) in page
    assert str(assigned) not in page
    assert str(other.operation_id) not in page
