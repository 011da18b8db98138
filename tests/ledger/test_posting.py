from collections.abc import Callable
from types import ModuleType

import pytest
import structlog
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.db.transaction import TransactionManagementError
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest_django import DjangoAssertNumQueries, DjangoCaptureOnCommitCallbacks

from ledger import posting
from ledger.exceptions import MissingOrganizations
from ledger.models import BalanceLog, Organization, Payment
from ledger.money import BALANCE_KOPECKS_MAX
from ledger.posting import PAYMENTS_LOGGED_MAX, PriorPosting, create_organizations, post, try_lock
from ledger.terms import PaymentTerms
from tests.factories import (
    IVANOV,
    ROMASHKA,
    VASILEK,
    balances,
    make_organizations,
    post_payments,
    posting_source,
    terms,
)
from tests.query_plans import requires_mysql_explain, update_statistics
from tests.row_counts import count_rows_read, count_vm_instructions

pytestmark = pytest.mark.django_db
EXISTS, CONFLICT = PriorPosting.EXISTS, PriorPosting.CONFLICT
CREATED = None  # by this batch


def entries_of(inn: str) -> list[tuple[int, int, int]]:
    """(seq, amount, balance after) of an organization's log."""
    log = BalanceLog.objects.filter(organization__inn=inn).order_by("seq")
    return list(log.values_list("seq", "amount_kopecks", "balance_after_kopecks"))


def test_payment_credits_its_organization() -> None:
    payment = terms(145_000_00)

    assert post_payments(payment) == [CREATED]

    assert balances() == {ROMASHKA: 145_000_00}
    assert entries_of(ROMASHKA) == [(1, 145_000_00, 145_000_00)]
    assert Payment.objects.get().terms == payment


def test_example_day_of_two_shops() -> None:
    """Three customers pay Romashka, one of them in kopecks; Vasilek sells once."""
    morning = post_payments(terms(1_500_00), terms(99, inn=VASILEK), terms(20_99))
    evening = post_payments(terms(3_000_00))

    assert morning + evening == [CREATED] * 4
    assert entries_of(ROMASHKA) == [(1, 1_500_00, 1_500_00), (2, 20_99, 1_520_99), (3, 3_000_00, 4_520_99)]
    assert entries_of(VASILEK) == [(1, 99, 99)]
    assert balances() == {ROMASHKA: 4_520_99, VASILEK: 99}


def test_same_operation_twice_credits_once() -> None:
    payment = terms(100_00)

    assert post_payments(payment) == [CREATED]
    assert post_payments(payment) == [EXISTS]

    assert balances() == {ROMASHKA: 100_00}


def test_duplicate_operation_in_one_batch_rolls_back_the_batch() -> None:
    payment = terms(100_00)

    with pytest.raises(IntegrityError):
        post_payments(payment, payment)

    assert not Payment.objects.exists()


def test_reposting_an_operation_rolls_back_the_batch() -> None:
    """The unique key decides, whether or not the caller checked with find_posted."""
    payment = terms(100_00)
    post_payments(payment)

    with pytest.raises(IntegrityError), transaction.atomic():
        post(posting_source(terms(1), payment), try_lock({ROMASHKA}))

    assert entries_of(ROMASHKA) == [(1, 100_00, 100_00)]


@pytest.mark.parametrize(
    "other",
    [
        {"amount_kopecks": 100_01},
        {"inn": VASILEK},
        {"document_number": "PAY-329"},
        {"document_date": terms().document_date.replace(hour=22)},
    ],
    ids=lambda other: next(iter(other)),
)
def test_other_terms_of_a_posted_operation_conflict(other: dict[str, object]) -> None:
    payment = terms()
    post_payments(payment)
    make_organizations(VASILEK)

    fields = {name: getattr(payment, name) for name in payment.__slots__}
    assert post_payments(PaymentTerms(**fields | other)) == [CONFLICT]

    assert balances() == {ROMASHKA: 100_00, VASILEK: 0}
    assert Payment.objects.get().terms == payment


def test_try_lock_names_missing_organizations() -> None:
    make_organizations(ROMASHKA)

    with pytest.raises(MissingOrganizations) as raised, transaction.atomic():
        try_lock({ROMASHKA, VASILEK, IVANOV})

    assert raised.value.inns == {VASILEK, IVANOV}


def test_posting_to_missing_organization_rolls_back_the_batch() -> None:
    make_organizations(ROMASHKA)

    with pytest.raises(IntegrityError), transaction.atomic():
        post(posting_source(terms(), terms(inn=VASILEK)), try_lock({ROMASHKA}))

    assert balances() == {ROMASHKA: 0}
    assert not Payment.objects.exists()


def test_overflowing_balance_rolls_back_the_batch() -> None:
    post_payments(terms(1_00))
    Organization.objects.update(balance_kopecks=BALANCE_KOPECKS_MAX - 1_00)

    with pytest.raises(DatabaseError):
        post_payments(terms(1_00), terms(1))

    assert entries_of(ROMASHKA) == [(1, 1_00, 1_00)]
    assert post_payments(terms(1_00)) == [CREATED]  # fits to the kopeck


def test_posting_takes_constant_number_of_statements(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    make_organizations(ROMASHKA, VASILEK, IVANOV)
    for count in (PAYMENTS_LOGGED_MAX + 1, 100):
        batch = posting_source(
            *(terms(inn=(ROMASHKA, VASILEK, IVANOV)[number % 3]) for number in range(count))
        )
        organizations = try_lock({ROMASHKA, VASILEK, IVANOV})
        with django_assert_num_queries(4):
            post(batch, organizations)


def test_posting_with_unlocked_organization_rolls_back_the_batch() -> None:
    make_organizations(ROMASHKA, VASILEK)

    with pytest.raises(IntegrityError), transaction.atomic():
        post(posting_source(terms(), terms(inn=VASILEK)), try_lock({ROMASHKA}))
    with pytest.raises(IntegrityError), transaction.atomic():
        post(posting_source(terms()), {})

    assert not Payment.objects.exists()


@requires_mysql_explain
@pytest.mark.django_db(transaction=True)  # ANALYZE ends a test's own transaction
def test_posting_cost_is_independent_of_log_length() -> None:
    post_payments(*(terms() for _ in range(1000)))
    update_statistics()
    batch = posting_source(terms(), terms())

    with transaction.atomic():
        organizations = try_lock({ROMASHKA})
        assert count_rows_read(lambda: post(batch, organizations)) < 100


@pytest.mark.skipif(connection.vendor != "sqlite", reason="counts the instructions of SQLite's machine")
def test_posting_cost_is_independent_of_log_length_on_sqlite() -> None:
    def post_two() -> None:
        batch = posting_source(terms(), terms())
        with transaction.atomic():
            organizations = try_lock({ROMASHKA})
            costs.append(count_vm_instructions(lambda: post(batch, organizations)))

    costs: list[int] = []
    make_organizations(ROMASHKA)
    post_two()
    post_payments(*(terms() for _ in range(1000)))
    post_two()
    assert costs[1] < 2 * costs[0]


def test_each_balance_change_is_logged_after_commit(
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    payment = terms(145_000_00)
    with structlog.testing.capture_logs() as events, django_capture_on_commit_callbacks(execute=True):
        post_payments(payment)
        post_payments(payment)
        assert events == []  # not committed yet

    organization = Organization.objects.get()
    assert events == [
        {
            "event": "balance changed",
            "log_level": "info",
            "operation_id": str(payment.operation_id),
            "organization_id": organization.pk,
            "seq": 1,
            "amount_kopecks": 145_000_00,
            "balance_after_kopecks": 145_000_00,
        }
    ]


def test_balance_changes_of_large_batch_are_one_log_event(
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    with structlog.testing.capture_logs() as events, django_capture_on_commit_callbacks(execute=True):
        post_payments(*(terms() for _ in range(PAYMENTS_LOGGED_MAX + 1)))

    assert events == [{"event": "balances changed", "log_level": "info", "payments": PAYMENTS_LOGGED_MAX + 1}]


def test_debug_log_names_operations_of_large_batch(
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
    log_debug: Callable[[ModuleType], None],
) -> None:
    batch = [terms() for _ in range(PAYMENTS_LOGGED_MAX + 1)]
    log_debug(posting)
    with structlog.testing.capture_logs() as events, django_capture_on_commit_callbacks(execute=True):
        post_payments(*batch)

    operation_ids = {operation_id for event in events for operation_id in event.get("operation_ids", [])}
    assert operation_ids == {str(payment.operation_id) for payment in batch}


@pytest.mark.django_db(transaction=True)
def test_posting_outside_a_transaction_is_refused() -> None:
    with pytest.raises(TransactionManagementError):
        post(posting_source(terms()), {})


def test_creating_organizations_inside_a_transaction_is_refused() -> None:
    with pytest.raises(TransactionManagementError):
        create_organizations([ROMASHKA])


@pytest.mark.django_db(transaction=True)
def test_creating_organizations_is_idempotent() -> None:
    create_organizations([ROMASHKA])
    post_payments(terms(5_00))

    create_organizations([ROMASHKA, VASILEK])

    assert balances() == {ROMASHKA: 5_00, VASILEK: 0}


# --- compared with a model in plain Python -------------------------------------------------------------

OPERATIONS = [terms().operation_id for _ in range(8)]
batches = st.lists(
    st.lists(
        st.builds(
            terms,
            st.integers(1, 999_999_999_999_999),
            inn=st.sampled_from([ROMASHKA, VASILEK, IVANOV]),
            operation_id=st.sampled_from(OPERATIONS),
            document_number=st.sampled_from(["1", "2"]),
        ),
        max_size=6,
        unique_by=lambda payment: payment.operation_id,
    ),
    max_size=6,
)


class Model:
    """The ledger in plain Python."""

    def __init__(self) -> None:
        self.known: dict[object, PaymentTerms] = {}
        self.log: dict[str, list[tuple[int, int, int]]] = {}

    def post(self, payment: PaymentTerms) -> PriorPosting | None:
        if payment.operation_id in self.known:
            return EXISTS if self.known[payment.operation_id] == payment else CONFLICT
        self.known[payment.operation_id] = payment
        entries = self.log.setdefault(payment.inn, [])
        before = entries[-1][2] if entries else 0
        entries.append((len(entries) + 1, payment.amount_kopecks, before + payment.amount_kopecks))
        return CREATED


@pytest.mark.parametrize("examples", [12, pytest.param(60, marks=pytest.mark.long)])
def test_random_batches_match_the_model(examples: int) -> None:
    settings(max_examples=examples)(given(batches)(post_like_the_model))()


def post_like_the_model(random_batches: list[list[PaymentTerms]]) -> None:
    model = Model()
    with transaction.atomic():
        for batch in random_batches:
            assert post_payments(*batch) == [model.post(one) for one in batch]
        for inn, entries in model.log.items():
            assert entries_of(inn) == entries
            organization = Organization.objects.get(inn=inn)
            assert (organization.last_seq, organization.balance_kopecks) == (len(entries), entries[-1][2])
        assert Payment.objects.count() == len(model.known)
        connection.set_rollback(True)


# --- constraints of the database -----------------------------------------------------------------------


def test_database_refuses_second_payment_of_an_operation() -> None:
    post_payments(terms())
    payment = Payment.objects.get()
    payment.pk = None
    with pytest.raises(IntegrityError), transaction.atomic():
        payment.save(force_insert=True)


@pytest.mark.parametrize("doubled", ["seq", "payment"])
def test_database_refuses_second_entry_with_same_seq_or_payment(doubled: str) -> None:
    post_payments(terms())
    entry, payment = BalanceLog.objects.get(), Payment.objects.get()
    payment.pk, payment.operation_id = None, terms().operation_id
    payment.save(force_insert=True)
    entry.pk = None
    if doubled == "seq":
        entry.payment = payment
    else:
        entry.seq = 2
    with pytest.raises(IntegrityError), transaction.atomic():
        entry.save(force_insert=True)


def test_database_refuses_zero_and_negative_amounts() -> None:
    for amount_kopecks in (0, -1):
        with pytest.raises(IntegrityError), transaction.atomic():
            post_payments(terms(amount_kopecks))
