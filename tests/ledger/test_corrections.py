"""Reversals and replacements: the ledger is corrected by further entries only."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import F
from django.test import Client
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.reconciliation import reconcile
from ledger import posting
from ledger.models import BalanceLog, Organization, Payment, Replacement
from ledger.operation_id import reversal_id
from ledger.posting import PriorPosting
from ledger.statement_csv import UTF_8, csv_chunks
from ledger.terms import PaymentTerms
from ledger.verification import no_progress, verify, verify_new
from tests.admin_client import superuser_client
from tests.corruption import rolled_back, unconstrained_tables
from tests.factories import (
    IVANOV,
    ROMASHKA,
    VASILEK,
    balances,
    correct,
    make_organizations,
    make_webhook,
    post_payments,
    terms,
)
from tests.ledger.test_posting import entries_of
from tests.ledger.test_statement import statement_of
from tests.query_plans import assert_index_lookups_only, requires_mysql_explain
from worker.applying import apply_ids

pytestmark = pytest.mark.django_db


def payment_of(operation: PaymentTerms) -> Payment:
    return Payment.objects.get(operation_id=operation.operation_id)


def test_reversal_takes_back_the_whole_payment() -> None:
    first, second = terms(145_000_00), terms(50, document_number="PAY-329")
    post_payments(first, second)

    correct(first)

    assert entries_of(ROMASHKA) == [
        (1, 145_000_00, 145_000_00),
        (2, 50, 145_000_50),
        (3, -145_000_00, 50),
    ]
    reversal = payment_of(first).reversal
    assert (reversal.kind, reversal.amount_kopecks) == ("reversal", 145_000_00)
    assert reversal.terms == replace(first, operation_id=reversal_id(first.operation_id))
    assert reversal.created_at >= payment_of(second).created_at
    assert list(verify()) == []


def test_replacement_posts_other_terms_to_another_organization() -> None:
    wrong, right = terms(100_00), terms(90_00, inn=VASILEK)
    post_payments(wrong)

    correct(wrong, right)

    assert balances() == {ROMASHKA: 0, VASILEK: 90_00}
    posted = Replacement.objects.get(replaced=payment_of(wrong)).payment
    assert posted.terms == right.in_place_of(wrong.operation_id)
    assert posted.operation_id not in {wrong.operation_id, right.operation_id}
    assert list(verify()) == []


def test_replacement_can_be_reversed_and_replaced_again() -> None:
    first, second, third = terms(100_00), terms(90_00), terms(100_00)
    post_payments(first)
    correct(first, second)
    correct(second.in_place_of(first.operation_id), third)

    assert [amount for _, amount, _ in entries_of(ROMASHKA)] == [100_00, -100_00, 90_00, -90_00, 100_00]


@pytest.mark.parametrize("other", [None, terms(1)], ids=["reversal", "replacement"])
def test_payment_is_reversed_once(other: PaymentTerms | None) -> None:
    payment = terms(100_00)
    post_payments(payment, terms(100_00))
    correct(payment, other)

    with pytest.raises(IntegrityError):
        correct(payment, other)

    assert len(entries_of(ROMASHKA)) == 3 + (other is not None)


def test_reversal_cannot_be_reversed() -> None:
    payment = terms()
    post_payments(payment)
    correct(payment)

    with pytest.raises(IntegrityError, match="a reversal can't be reversed"):
        correct(payment_of(payment).reversal.terms)


def test_only_a_reversed_payment_can_be_replaced_and_once() -> None:
    payment = terms(100_00)
    post_payments(payment)

    with pytest.raises(IntegrityError, match="only a reversed payment"):
        restore(payment, terms(90_00))
    correct(payment)
    restore(payment, payment)
    with pytest.raises(IntegrityError):
        restore(payment, payment)
    with pytest.raises(IntegrityError):
        restore(payment, terms(90_00))

    assert [amount for _, amount, _ in entries_of(ROMASHKA)] == [100_00, -100_00, 100_00]


def restore(operation: PaymentTerms, other: PaymentTerms) -> None:
    """Post `other` in place of the payment without reversing it first."""
    with transaction.atomic():
        posting.replace(payment_of(operation), other, posting.try_lock({operation.inn, other.inn}))


def test_correction_of_an_unlocked_organization_is_refused() -> None:
    payment = terms()
    post_payments(payment)
    make_organizations(VASILEK)

    with pytest.raises(IntegrityError, match="not locked"), transaction.atomic():
        posting.reverse(payment_of(payment), posting.try_lock({VASILEK}))
    correct(payment)
    with pytest.raises(IntegrityError, match="not locked"), transaction.atomic():
        posting.replace(payment_of(payment), terms(inn=VASILEK), posting.try_lock({ROMASHKA}))

    assert balances() == {ROMASHKA: 0, VASILEK: 0}


def test_operation_under_the_id_of_a_reversal_is_a_conflict() -> None:
    payment = terms()
    post_payments(payment)
    correct(payment)

    same = replace(payment, operation_id=reversal_id(payment.operation_id))
    assert post_payments(same) == [PriorPosting.CONFLICT]


@pytest.mark.parametrize("changed", [{"kind": "reversal"}, {"reverses": F("pk")}])
def test_database_refuses_a_kind_without_its_reversed_payment(changed: dict[str, Any]) -> None:
    post_payments(terms())
    payment = Payment.objects.get()
    copy = Payment(operation_id=terms().operation_id, amount_kopecks=1, document_number="1")
    copy.organization, copy.document_date = payment.organization, payment.document_date
    copy.created_at = payment.created_at
    copy.kind = changed.get("kind", copy.kind)
    copy.reverses = payment if "reverses" in changed else None
    with pytest.raises(IntegrityError), transaction.atomic():
        copy.save(force_insert=True)


# --- where people and programs read it --------------------------------------------------------------------


def test_history_shows_the_reversal_with_what_it_reverses(client: Client) -> None:
    payment = terms(100_50)
    post_payments(payment)
    correct(payment)

    newest, oldest = client.get(f"/api/organizations/{ROMASHKA}/balance/history/").json()["history"]

    assert newest["amount"] == -100.50
    assert newest["balance_after"] == 0
    assert newest["reverses"] == str(payment.operation_id)
    assert newest["operation_id"] == str(reversal_id(payment.operation_id))
    assert oldest.keys() == newest.keys() - {"reverses"}


def test_statement_shows_credited_and_reversed_apart() -> None:
    wrong = terms(100_00)
    post_payments(terms(5_00), wrong)
    correct(wrong, terms(90_00))
    organization = Organization.objects.get()

    whole = statement_of(organization)

    assert (whole.credited, whole.reversed, whole.turnover, whole.closing) == (195_00, 100_00, 95_00, 95_00)


def test_csv_shows_the_reversal_and_both_totals() -> None:
    wrong = terms(100_00)
    post_payments(terms(5_00), wrong)
    correct(wrong)
    organization = Organization.objects.get()

    [content] = csv_chunks(statement_of(organization), UTF_8)

    *_, reversal, credited, reversed_row, turnover, closing = content.decode().splitlines()
    assert reversal.split(";")[5:7] == ["-100,00", "5,00"]
    assert reversal.split(";")[8] == str(wrong.operation_id)
    assert credited.endswith("Credited;;105,00")
    assert reversed_row.endswith("Reversed;;-100,00")
    assert turnover.endswith("Turnover;;5,00")
    assert closing.endswith("Closing balance;;5,00")


def test_page_of_a_reversed_payment_shows_both() -> None:
    payment = terms(100_00)
    post_payments(payment)
    correct(payment)
    organization = Organization.objects.get()

    page = superuser_client().get(f"/admin/ledger/organization/{organization.pk}/change/").content.decode()

    for text in ("Credited", "Reversed", "−100,00\N{NO-BREAK SPACE}₽", "reverses", str(payment.operation_id)):
        assert text in page


@requires_mysql_explain
@pytest.mark.django_db(transaction=True)
def test_history_and_statement_read_by_indexes_only() -> None:
    batch = [terms() for _ in range(300)]
    post_payments(*batch, *(terms(inn=VASILEK) for _ in range(300)))
    for payment in batch[:20]:
        correct(payment)
    organization = Organization.objects.get(inn=ROMASHKA)

    assert_index_lookups_only(lambda: statement_of(organization).page())


# --- verification -------------------------------------------------------------------------------------------


def change_reversal(**changes: Any) -> Callable[[], object]:
    return lambda: Payment.objects.filter(kind="reversal").update(**changes)


def reverse_the_other() -> None:
    change_reversal(reverses=Payment.objects.get(organization__inn=VASILEK))()


def negative_prefix() -> None:
    """Let the reversal stand before its payment, with all sums right."""
    for old, new, amount, balance in ((1, 9, 100_00, 0), (2, 1, -100_00, -100_00), (9, 2, 100_00, 0)):
        BalanceLog.objects.filter(organization__inn=ROMASHKA, seq=old).update(
            seq=new, amount_kopecks=amount, balance_after_kopecks=balance
        )


REVERSAL_CORRUPTIONS: dict[str, tuple[Callable[[], object], str]] = {
    "of a reversal": (change_reversal(reverses=F("pk")), "reversal"),
    "of nothing": (change_reversal(reverses=999), "reversal"),
    "in part": (
        lambda: Payment.objects.filter(kind="payment", organization__inn=ROMASHKA).update(amount_kopecks=1),
        "amount_kopecks",
    ),
    "of another organization": (reverse_the_other, "reversal"),
    "without a reversed payment": (change_reversal(reverses=None), "kind"),
    "as a payment": (change_reversal(kind="payment"), "kind"),
    "credited": (
        lambda: BalanceLog.objects.filter(seq=2).update(amount_kopecks=100_00),
        "amount_kopecks",
    ),
    "before its payment": (negative_prefix, "negative_kopecks"),
}


@pytest.fixture
def corrected_ledger(transactional_db: None) -> Iterator[None]:
    """Romashka has a payment and its reversal, Vasilek a payment of the same amount."""
    payment = terms(100_00)
    post_payments(payment, terms(100_00, inn=VASILEK))
    correct(payment)
    with unconstrained_tables():
        yield


def test_each_false_reversal_is_drift(corrected_ledger: None, subtests: pytest.Subtests) -> None:
    assert list(verify()) == []
    for name, (corrupt, what) in REVERSAL_CORRUPTIONS.items():
        with subtests.test(name), rolled_back():
            corrupt()
            assert what in [drift.what for drift in verify()]
            assert list(verify_new(no_progress, 0, 0))


def test_payment_reversed_twice_is_drift(corrected_ledger: None) -> None:
    copy = Payment.objects.get(kind="reversal")
    copy.pk, copy.operation_id = 1000, terms().operation_id
    copy.save(force_insert=True)

    assert [drift.what for drift in verify()].count("reversal") == 2


def test_replacement_of_a_payment_that_stands_is_drift() -> None:
    first, second = terms(100_00), terms(100_00)
    post_payments(first, second)
    Replacement.objects.create(replaced=payment_of(first), payment=payment_of(second))

    assert [drift.what for drift in verify()] == ["replacement"]
    assert [drift.what for drift in verify_new(no_progress, 0, 0)] == ["replacement"]


@pytest.mark.parametrize("other", [None, terms(1, inn=VASILEK)], ids=["reversal", "replacement"])
def test_correction_without_an_operator_action_is_drift(other: PaymentTerms | None) -> None:
    webhook = make_webhook()
    make_organizations(webhook.payer_inn)
    apply_ids([webhook.pk])
    correct(webhook.terms, other)

    [drift] = reconcile()

    assert (drift.what, drift.operation_id) == ("correction", webhook.operation_id)
    assert drift.expected == "at most 0 replacements and 0 reversals"
    assert list(verify()) == []


# --- compared with a model in plain Python ------------------------------------------------------------------

INNS = (ROMASHKA, VASILEK, IVANOV)
amounts = st.integers(1, 10**15)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("post"), st.sampled_from(INNS), amounts),
        st.tuples(st.just("repeat"), st.integers(0, 30)),
        st.tuples(st.just("reverse"), st.integers(0, 30)),
        st.tuples(st.just("replace"), st.integers(0, 30), st.sampled_from(INNS), amounts),
        st.tuples(st.just("restore"), st.integers(0, 30)),
        st.tuples(st.just("crash"), st.integers(0, 30), st.sampled_from(INNS)),
    ),
    min_size=4,
    max_size=12,
)
FIRST_STEPS = [("post", INNS[0], 1_00), ("post", INNS[0], 2_00), ("post", INNS[1], 3_00)]


class Model:
    """The ledger in plain Python: what each payment says, which are reversed, and the signed entries."""

    def __init__(self) -> None:
        self.payments: list[PaymentTerms] = []
        self.reversed: set[int] = set()
        self.replaced: set[int] = set()
        self.entries: dict[str, list[int]] = {inn: [] for inn in INNS}

    def post(self, payment: PaymentTerms) -> None:
        self.payments.append(payment)
        self.entries[payment.inn].append(payment.amount_kopecks)

    def reverse(self, number: int) -> None:
        self.reversed.add(number)
        self.entries[self.payments[number].inn].append(-self.payments[number].amount_kopecks)

    def balance(self, inn: str) -> int:
        """Sum the unreversed payments (I3)."""
        return sum(
            payment.amount_kopecks
            for number, payment in enumerate(self.payments)
            if payment.inn == inn and number not in self.reversed
        )


def run(model: Model, step: tuple[Any, ...]) -> None:
    """Do one step in the ledger and in the model."""
    action, *arguments = step
    if action == "post":
        inn, amount = arguments
        payment = terms(amount, inn=inn)
        assert post_payments(payment) == [None]
        model.post(payment)
    elif model.payments:
        number = arguments[0] % len(model.payments)
        ACTIONS[action](model, number, model.payments[number], *arguments[1:])


def repeat(_model: Model, _number: int, payment: PaymentTerms) -> None:
    assert post_payments(payment) == [PriorPosting.EXISTS]


def restore_reversed(model: Model, number: int, payment: PaymentTerms) -> None:
    if number in model.reversed - model.replaced:
        restore(payment, payment)
        model.replaced.add(number)
        model.post(payment.in_place_of(payment.operation_id))
    else:
        with pytest.raises(IntegrityError):
            restore(payment, payment)


def reverse_payment(model: Model, number: int, payment: PaymentTerms) -> None:
    if number in model.reversed:
        with pytest.raises(IntegrityError):
            correct(payment)
    else:
        correct(payment)
        model.reverse(number)


def replace_payment(model: Model, number: int, payment: PaymentTerms, inn: str, amount: int) -> None:
    other = terms(amount, inn=inn)
    if number in model.reversed:
        with pytest.raises(IntegrityError):
            correct(payment, other)
    else:
        correct(payment, other)
        model.reverse(number)
        model.replaced.add(number)
        model.post(other.in_place_of(payment.operation_id))


def crash(model: Model, number: int, payment: PaymentTerms, inn: str) -> None:
    """Replace, and die before the commit."""
    with transaction.atomic():
        if number not in model.reversed:
            correct(payment, terms(inn=inn))
        transaction.set_rollback(True)


ACTIONS: dict[str, Callable[..., None]] = {
    "repeat": repeat,
    "reverse": reverse_payment,
    "replace": replace_payment,
    "restore": restore_reversed,
    "crash": crash,
}


@pytest.mark.parametrize("examples", [10, pytest.param(40, marks=pytest.mark.long)])
def test_random_corrections_match_the_model(examples: int) -> None:
    settings(max_examples=examples)(given(steps)(correct_like_the_model))()


def correct_like_the_model(random_steps: list[tuple[Any, ...]]) -> None:
    model = Model()
    with transaction.atomic():
        make_organizations(*INNS)
        for step in [*FIRST_STEPS, *random_steps]:
            run(model, step)
            assert balances() == {inn: model.balance(inn) for inn in INNS}  # I3
        for inn, amounts_of in model.entries.items():
            found = entries_of(inn)
            assert [amount for _, amount, _ in found] == amounts_of
            assert all(balance >= 0 for _, _, balance in found)  # I2
        assert_reversals_are_whole()  # I1
        posted, reversals = model.payments, [model.payments[number] for number in model.reversed]
        assert sum(balances().values()) == sum_of(posted) - sum_of(reversals)  # I4
        assert list(verify()) == []
        connection.set_rollback(True)


def assert_reversals_are_whole() -> None:
    for reversal in Payment.objects.filter(kind="reversal").select_related("reverses", "log_entry"):
        original = reversal.reverses
        assert original is not None
        assert (original.kind, original.organization_id) == ("payment", reversal.organization_id)
        assert original.amount_kopecks == reversal.amount_kopecks
        assert original.log_entry.seq < reversal.log_entry.seq


def sum_of(payments: list[PaymentTerms]) -> int:
    return sum(payment.amount_kopecks for payment in payments)
