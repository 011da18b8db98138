import logging

import pytest
import structlog
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.db.transaction import TransactionManagementError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytest_django import DjangoAssertNumQueries, DjangoCaptureOnCommitCallbacks

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
CREATED = None  # now, and not before


def lines_of(inn: str) -> list[tuple[int, int, int]]:
    """(seq, amount, balance after) of an organization's log."""
    log = BalanceLog.objects.filter(organization__inn=inn).order_by("seq")
    return list(log.values_list("seq", "amount_kopecks", "balance_after_kopecks"))


def test_a_payment_credits_its_organization() -> None:
    told = terms(145_000_00)

    assert post_payments(told) == [CREATED]

    assert balances() == {ROMASHKA: 145_000_00}
    assert lines_of(ROMASHKA) == [(1, 145_000_00, 145_000_00)]
    assert Payment.objects.get().terms == told


def test_worked_example_a_day_of_two_shops() -> None:
    """Three customers pay Romashka, one of them in kopecks; Vasilek sells once."""
    morning = post_payments(terms(1_500_00), terms(99, inn=VASILEK), terms(20_99))
    evening = post_payments(terms(3_000_00))

    assert morning + evening == [CREATED] * 4
    assert lines_of(ROMASHKA) == [(1, 1_500_00, 1_500_00), (2, 20_99, 1_520_99), (3, 3_000_00, 4_520_99)]
    assert lines_of(VASILEK) == [(1, 99, 99)]
    assert balances() == {ROMASHKA: 4_520_99, VASILEK: 99}


def test_same_operation_twice_credits_once() -> None:
    told = terms(100_00)

    assert post_payments(told) == [CREATED]
    assert post_payments(told) == [EXISTS]

    assert balances() == {ROMASHKA: 100_00}


def test_same_operation_twice_in_one_batch_is_refused_whole() -> None:
    told = terms(100_00)

    with pytest.raises(IntegrityError):
        post_payments(told, told)

    assert not Payment.objects.exists()


def test_posting_what_is_posted_already_is_refused_whole() -> None:
    """The unique key decides, whether or not somebody looked before."""
    told = terms(100_00)
    post_payments(told)

    with pytest.raises(IntegrityError), transaction.atomic():
        post(posting_source(terms(1), told), try_lock({ROMASHKA}))

    assert lines_of(ROMASHKA) == [(1, 100_00, 100_00)]


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
def test_other_terms_under_a_posted_operation_id_are_a_conflict(other: dict[str, object]) -> None:
    told = terms()
    post_payments(told)
    make_organizations(VASILEK)

    fields = {name: getattr(told, name) for name in told.__slots__}
    assert post_payments(PaymentTerms(**fields | other)) == [CONFLICT]

    assert balances() == {ROMASHKA: 100_00, VASILEK: 0}
    assert Payment.objects.get().terms == told


def test_an_organization_that_is_not_open_is_named() -> None:
    make_organizations(ROMASHKA)

    with pytest.raises(MissingOrganizations) as raised, transaction.atomic():
        try_lock({ROMASHKA, VASILEK, IVANOV})

    assert raised.value.inns == {VASILEK, IVANOV}


def test_posting_to_an_organization_that_is_not_open_is_refused_whole() -> None:
    make_organizations(ROMASHKA)

    with pytest.raises(IntegrityError), transaction.atomic():
        post(posting_source(terms(), terms(inn=VASILEK)), try_lock({ROMASHKA}))

    assert balances() == {ROMASHKA: 0}
    assert not Payment.objects.exists()


def test_a_balance_that_would_overflow_is_refused_whole() -> None:
    post_payments(terms(1_00))
    Organization.objects.update(balance_kopecks=BALANCE_KOPECKS_MAX - 1_00)

    with pytest.raises(DatabaseError):
        post_payments(terms(1_00), terms(1))

    assert lines_of(ROMASHKA) == [(1, 1_00, 1_00)]
    assert post_payments(terms(1_00)) == [CREATED]  # to the last kopeck it fits


def test_the_statements_of_a_batch_do_not_grow_with_it(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    make_organizations(ROMASHKA, VASILEK, IVANOV)
    for count in (PAYMENTS_LOGGED_MAX + 1, 100):
        told = posting_source(
            *(terms(inn=(ROMASHKA, VASILEK, IVANOV)[number % 3]) for number in range(count))
        )
        organizations = try_lock({ROMASHKA, VASILEK, IVANOV})
        with django_assert_num_queries(4):
            post(told, organizations)


def test_posting_under_organizations_that_are_not_all_is_refused_whole() -> None:
    make_organizations(ROMASHKA, VASILEK)

    with pytest.raises(IntegrityError), transaction.atomic():
        post(posting_source(terms(), terms(inn=VASILEK)), try_lock({ROMASHKA}))
    with pytest.raises(IntegrityError), transaction.atomic():
        post(posting_source(terms()), {})

    assert not Payment.objects.exists()


@requires_mysql_explain
@pytest.mark.django_db(transaction=True)  # ANALYZE ends a test's own transaction
def test_a_long_log_costs_its_next_line_nothing() -> None:
    post_payments(*(terms() for _ in range(1000)))
    update_statistics()
    told = posting_source(terms(), terms())

    with transaction.atomic():
        organizations = try_lock({ROMASHKA})
        assert count_rows_read(lambda: post(told, organizations)) < 100


@pytest.mark.skipif(connection.vendor != "sqlite", reason="counts the instructions of SQLite's machine")
def test_a_long_log_costs_its_next_line_nothing_on_sqlite() -> None:
    def post_two() -> None:
        told = posting_source(terms(), terms())
        with transaction.atomic():
            organizations = try_lock({ROMASHKA})
            costs.append(count_vm_instructions(lambda: post(told, organizations)))

    costs: list[int] = []
    make_organizations(ROMASHKA)
    post_two()
    post_payments(*(terms() for _ in range(1000)))
    post_two()
    assert costs[1] < 2 * costs[0]


def test_each_balance_change_is_one_structured_line_after_the_commit(
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    told = terms(145_000_00)
    with structlog.testing.capture_logs() as lines, django_capture_on_commit_callbacks(execute=True):
        post_payments(told)
        post_payments(told)
        assert lines == []  # nobody knows yet whether it will be committed

    organization = Organization.objects.get()
    assert lines == [
        {
            "event": "balance changed",
            "log_level": "info",
            "operation_id": str(told.operation_id),
            "organization_id": organization.pk,
            "seq": 1,
            "amount_kopecks": 145_000_00,
            "balance_after_kopecks": 145_000_00,
        }
    ]


def test_the_balance_changes_of_a_large_batch_are_one_line(
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    with structlog.testing.capture_logs() as lines, django_capture_on_commit_callbacks(execute=True):
        post_payments(*(terms() for _ in range(PAYMENTS_LOGGED_MAX + 1)))

    assert lines == [{"event": "balances changed", "log_level": "info", "payments": PAYMENTS_LOGGED_MAX + 1}]


def test_at_debug_a_large_batch_names_its_operations(
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks, caplog: pytest.LogCaptureFixture
) -> None:
    batch = [terms() for _ in range(PAYMENTS_LOGGED_MAX + 1)]
    caplog.set_level(logging.DEBUG, "ledger.posting")
    with structlog.testing.capture_logs() as lines, django_capture_on_commit_callbacks(execute=True):
        post_payments(*batch)

    operation_ids = {operation_id for line in lines for operation_id in line.get("operation_ids", [])}
    assert operation_ids == {str(told.operation_id) for told in batch}


@pytest.mark.django_db(transaction=True)
def test_posting_outside_a_transaction_is_refused() -> None:
    with pytest.raises(TransactionManagementError):
        post(posting_source(terms()), {})


def test_opening_an_organization_inside_a_transaction_is_refused() -> None:
    with pytest.raises(TransactionManagementError):
        create_organizations([ROMASHKA])


@pytest.mark.django_db(transaction=True)
def test_opening_twice_opens_once_and_changes_nothing() -> None:
    create_organizations([ROMASHKA])
    post_payments(terms(5_00))

    create_organizations([ROMASHKA, VASILEK])

    assert balances() == {ROMASHKA: 5_00, VASILEK: 0}


# --- against a model in plain Python -----------------------------------------------------------------

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
        unique_by=lambda told: told.operation_id,
    ),
    max_size=6,
)


class Model:
    """The ledger as a person with a sheet of paper would keep it."""

    def __init__(self) -> None:
        self.known: dict[object, PaymentTerms] = {}
        self.lines: dict[str, list[tuple[int, int, int]]] = {}

    def post(self, told: PaymentTerms) -> PriorPosting | None:
        if told.operation_id in self.known:
            return EXISTS if self.known[told.operation_id] == told else CONFLICT
        self.known[told.operation_id] = told
        sheet = self.lines.setdefault(told.inn, [])
        before = sheet[-1][2] if sheet else 0
        sheet.append((len(sheet) + 1, told.amount_kopecks, before + told.amount_kopecks))
        return CREATED


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches)
def test_any_batches_end_like_the_model(told: list[list[PaymentTerms]]) -> None:
    model = Model()
    with transaction.atomic():
        for batch in told:
            assert post_payments(*batch) == [model.post(one) for one in batch]
        for inn, sheet in model.lines.items():
            assert lines_of(inn) == sheet
            organization = Organization.objects.get(inn=inn)
            assert (organization.last_seq, organization.balance_kopecks) == (len(sheet), sheet[-1][2])
        assert Payment.objects.count() == len(model.known)
        connection.set_rollback(True)


# --- what the database itself refuses ----------------------------------------------------------------


def test_the_database_refuses_a_second_payment_of_an_operation() -> None:
    post_payments(terms())
    payment = Payment.objects.get()
    payment.pk = None
    with pytest.raises(IntegrityError), transaction.atomic():
        payment.save(force_insert=True)


@pytest.mark.parametrize("doubled", ["seq", "payment"])
def test_the_database_refuses_a_second_line_with_the_same_seq_or_payment(doubled: str) -> None:
    post_payments(terms())
    line, payment = BalanceLog.objects.get(), Payment.objects.get()
    payment.pk, payment.operation_id = None, terms().operation_id
    payment.save(force_insert=True)
    line.pk = None
    if doubled == "seq":
        line.payment = payment
    else:
        line.seq = 2
    with pytest.raises(IntegrityError), transaction.atomic():
        line.save(force_insert=True)


def test_the_database_refuses_money_of_no_or_less_than_no_amount() -> None:
    for amount_kopecks in (0, -1):
        with pytest.raises(IntegrityError), transaction.atomic():
            post_payments(terms(amount_kopecks))
