"""Random deliveries, corrections and crashes leave the books that a model in plain Python has.

Each invariant has been seen red by a bug planted in the code:

* I1: a reversal names the newest payment of its organization instead of its own; refused by the keys
* I2: a reversal takes back twice the amount; refused by the check of the balance
* I3: a reversal does not update the balance of its organization
* I4: a replacement has a kopeck more
* I11: a chunk of an operator action, and the correction in it, are no transaction
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, connection, transaction
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest import inbox, operator_actions
from ingest.models import ConflictingDelivery, OperatorAction, OperatorActionItem, Webhook
from ingest.reconciliation import reconcile
from ledger.terms import PaymentTerms
from ledger.verification import verify
from tests.factories import IVANOV, ROMASHKA, SUSPENSE, VASILEK, balances, make_organizations, terms
from tests.ledger.test_corrections import assert_reversals_are_whole
from tests.ledger.test_posting import entries_of
from tests.payloads import payment_body
from worker.applying import apply_batch

pytestmark = pytest.mark.django_db
Kind = OperatorAction.Kind
INNS = (ROMASHKA, VASILEK, IVANOV)
ACCOUNTS = (*INNS, SUSPENSE)

amounts = st.integers(1, 10**15)
numbers = st.integers(0, 30)
kinds = st.sampled_from([Kind.REVERSE, Kind.REPLACE, Kind.ASSIGN, Kind.UNASSIGN])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("deliver"), st.sampled_from(ACCOUNTS), amounts),
        st.tuples(st.just("deliver again"), numbers),
        st.tuples(st.just("conflict"), numbers, st.sampled_from(INNS), amounts),
        # The statement at which the process dies the first time; 0 for none.
        st.tuples(st.just("correct"), kinds, numbers, st.sampled_from(INNS), st.integers(0, 40)),
    ),
    min_size=4,
    max_size=10,
)
FIRST_STEPS = [("deliver", ROMASHKA, 1_00), ("deliver", ROMASHKA, 2_00), ("deliver", SUSPENSE, 3_00)]


class Died(DatabaseError):
    """The process died before this statement."""


@dataclass
class Operation:
    """An operation of the model: what stands for it now."""

    webhook: Webhook
    original: PaymentTerms
    current: PaymentTerms
    is_reversed: bool = False
    conflicts: list[PaymentTerms] = field(default_factory=list)


class Model:
    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.entries: dict[str, list[int]] = {inn: [] for inn in ACCOUNTS}

    def deliver(self, webhook: Webhook) -> None:
        self.operations.append(Operation(webhook, webhook.terms, webhook.terms))
        self.entries[webhook.payer_inn].append(webhook.amount_kopecks)

    def correct(self, kind: Kind, operation: Operation, inn: str) -> bool:
        """Correct the operation; return whether that is possible."""
        terms = self._terms(kind, operation, inn)
        if kind == Kind.REPLACE:
            operation.conflicts.clear()
        unchanged = operation.current if not operation.is_reversed else None
        if terms == unchanged or (terms is None and kind != Kind.REVERSE):
            return False
        if not operation.is_reversed:
            self.entries[operation.current.inn].append(-operation.current.amount_kopecks)
        operation.is_reversed = terms is None
        if terms:
            operation.current = terms
            self.entries[terms.inn].append(terms.amount_kopecks)
        return True

    def _terms(self, kind: Kind, operation: Operation, inn: str) -> PaymentTerms | None:
        """Return the terms to post, None for none or if there is nothing to do."""
        current, stands = operation.current, not operation.is_reversed
        match kind:
            case Kind.REPLACE:
                return operation.conflicts[-1] if operation.conflicts else None
            case Kind.ASSIGN:
                return replace(current, inn=inn) if stands and current.inn == SUSPENSE else None
            case Kind.UNASSIGN:
                was_assigned = stands and operation.original.inn == SUSPENSE != current.inn
                return replace(current, inn=SUSPENSE) if was_assigned else None
            case _:
                return None if stands else current

    def balance(self, inn: str) -> int:
        """Sum the unreversed payments (I3)."""
        standing = (each.current for each in self.operations if not each.is_reversed)
        return sum(each.amount_kopecks for each in standing if each.inn == inn)


@contextmanager
def dying(statement: int) -> Iterator[None]:
    """Die before this statement, counted from 1; never if it is 0."""
    count = 0

    def count_or_die(execute: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == statement:
            raise Died
        return execute(*arguments)

    with connection.execute_wrapper(count_or_die):
        yield


def deliver(model: Model, inn: str, amount: int) -> None:
    payment = terms(amount, inn=inn)
    # A webhook to suspense has no body of our own contract, which reconciliation would read.
    inbox.store(payment, inbox.Delivery(b"" if inn == SUSPENSE else payment_body(payment)))
    apply_batch(10)
    model.deliver(Webhook.objects.get(operation_id=payment.operation_id))


def deliver_again(model: Model, number: int) -> None:
    if model.operations:
        payment = model.operations[number % len(model.operations)].original
        inbox.store(payment, inbox.Delivery(payment_body(payment)))
        assert apply_batch(10) == 0


def conflict(model: Model, number: int, inn: str, amount: int) -> None:
    if model.operations:
        operation = model.operations[number % len(model.operations)]
        other = replace(operation.original, inn=inn, amount_kopecks=amount)
        ConflictingDelivery.objects.create(
            webhook=operation.webhook, difference="amount_kopecks", body=payment_body(other)
        )
        operation.conflicts.append(other)


def correct(model: Model, kind: Kind, number: int, inn: str, dies_at: int) -> None:
    if not model.operations:
        return
    operation = model.operations[number % len(model.operations)]
    by = User.objects.get_or_create(username="anna")[0]
    action = OperatorAction(kind=kind, by=by, by_name="anna", inn=inn if kind == Kind.ASSIGN else "")
    operator_actions.create_for_ids(action, [operation.webhook.pk], "a mistake")
    before = {account: entries_of(account) for account in ACCOUNTS}
    try:
        with dying(dies_at):
            operator_actions.run_chunk(action.pk)
    except Died:
        assert {account: entries_of(account) for account in ACCOUNTS} == before  # I11
        assert OperatorActionItem.objects.get(action=action).outcome == OperatorActionItem.Outcome.PENDING
        operator_actions.run_chunk(action.pk)
    outcome = OperatorActionItem.objects.get(action=action).outcome
    assert outcome == ("done" if model.correct(kind, operation, inn) else "refused")


STEPS: dict[str, Callable[..., None]] = {
    "deliver": deliver,
    "deliver again": deliver_again,
    "conflict": conflict,
    "correct": correct,
}


@pytest.mark.parametrize("examples", [8, pytest.param(40, marks=pytest.mark.long)])
def test_random_corrections_leave_the_books_of_the_model(examples: int) -> None:
    settings(max_examples=examples)(given(steps)(correct_like_the_model))()


def correct_like_the_model(random_steps: list[tuple[Any, ...]]) -> None:
    model = Model()
    with transaction.atomic():
        make_organizations(*ACCOUNTS)
        for name, *arguments in [*FIRST_STEPS, *random_steps]:
            STEPS[name](model, *arguments)
            assert balances() == {inn: model.balance(inn) for inn in ACCOUNTS}  # I3
        for inn, signed in model.entries.items():
            entries = entries_of(inn)
            assert [amount for _, amount, _ in entries] == signed  # I4
            assert all(balance >= 0 for _, _, balance in entries)  # I2
        assert_reversals_are_whole()  # I1
        assert not [*verify(), *reconcile()]
        connection.set_rollback(True)
