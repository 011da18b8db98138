from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import ANY
from uuid import UUID

import pytest
from django.db.models import F
from pytest_django import DjangoAssertNumQueries

from ledger import verification
from ledger.models import BalanceLog, Organization, Payment
from ledger.verification import Drift, verify
from tests.corruption import raw_delete, rolled_back, unconstrained_tables
from tests.factories import (
    IVANOV,
    MIDNIGHT_IN_MOSCOW,
    ROMASHKA,
    VASILEK,
    make_organizations,
    post_payments,
    terms,
)

committed = pytest.mark.django_db(transaction=True)


def organization(inn: str) -> Any:
    return Organization.objects.filter(inn=inn)


def entry(seq: int, inn: str = ROMASHKA) -> Any:
    return BalanceLog.objects.filter(organization__inn=inn, seq=seq)


def payment(seq: int, inn: str = ROMASHKA) -> Any:
    return Payment.objects.filter(id__in=list(entry(seq, inn).values_list("payment_id", flat=True)))


def add_entry(seq: int, like: int) -> None:
    """Insert another entry with the payment and amounts of entry `like`."""
    copy = entry(like).get()
    copy.pk, copy.seq = BalanceLog.objects.latest("pk").pk + 1, seq  # the tables have no keys here
    copy.save(force_insert=True)


@pytest.fixture
def ledger() -> None:
    """Romashka has three entries, 100.00, 120.50 and 123.50 after them; Vasilek two, 7.00 and 15.00."""
    post_payments(terms(100_00), terms(20_50), terms(3_00))
    post_payments(terms(7_00, inn=VASILEK), terms(8_00, inn=VASILEK))


@pytest.fixture
def unconstrained_ledger(ledger: None) -> Iterator[None]:
    with unconstrained_tables():
        yield


def move(*rows: Any) -> None:
    for row in rows:
        row.update(organization=organization(VASILEK).get())


def change_amount(seq: int, amount_kopecks: int) -> None:
    """Change the amount of an entry and of its payment."""
    payment(seq).update(amount_kopecks=amount_kopecks)
    entry(seq).update(amount_kopecks=amount_kopecks)


def add_payment() -> None:
    copy = payment(3).get()
    copy.pk, copy.operation_id = 1000, UUID(int=1)
    copy.save(force_insert=True)


def create_with_balance() -> None:
    Organization.objects.create(id=99, inn=IVANOV, balance_kopecks=1, opened_at=MIDNIGHT_IN_MOSCOW)


def found() -> list[tuple[object, ...]]:
    return [(d.what, d.inn, d.seq, d.expected, d.found) for d in verify()]


@pytest.mark.django_db
def test_ledger_built_by_posting_has_no_drift(ledger: None) -> None:
    make_organizations(IVANOV)
    rows: list[tuple[str, int]] = []

    assert list(verify(lambda what, count: rows.append((what, count)))) == []

    assert rows == [("entries", 5), ("organizations", 3), ("payments", 5)]


@pytest.mark.django_db
def test_empty_ledger_has_no_drift() -> None:
    assert found() == []


@committed
def test_unconstrained_copy_of_a_ledger_has_no_drift(unconstrained_ledger: None) -> None:
    assert found() == []


# The corruption of the ledger; and what, INN, seq, expected, found.
CORRUPTIONS: dict[str, tuple[Callable[[], object], tuple[object, ...]]] = {
    "changed balance": (
        lambda: organization(ROMASHKA).update(balance_kopecks=123_51),
        ("balance_kopecks", ROMASHKA, None, 123_50, 123_51),
    ),
    "changed last_seq": (
        lambda: organization(ROMASHKA).update(last_seq=4),
        ("last_seq", ROMASHKA, None, 4, 3),
    ),
    "balance without entries": (create_with_balance, ("balance_kopecks", IVANOV, None, 0, 1)),
    "removed entry": (lambda: raw_delete(entry(2)), ("missing_entry", ROMASHKA, 2, 2, 3)),
    "removed first entry": (lambda: raw_delete(entry(1)), ("missing_entry", ROMASHKA, 1, 1, 2)),
    "removed last entry": (lambda: raw_delete(entry(3)), ("last_seq", ROMASHKA, None, 3, 2)),
    "removed log": (
        lambda: raw_delete(BalanceLog.objects.filter(organization__inn=VASILEK)),
        ("last_seq", VASILEK, None, 2, 0),
    ),
    "duplicate seq": (lambda: entry(3).update(seq=2), ("duplicate_seq", ROMASHKA, 2, 3, 2)),
    "duplicate entry": (lambda: add_entry(3, like=3), ("duplicate_seq", ROMASHKA, 3, 4, 3)),
    "log that begins with 0": (
        lambda: BalanceLog.objects.update(seq=F("seq") - 1),
        ("duplicate_seq", ROMASHKA, 0, 1, 0),
    ),
    "changed amount of an entry": (
        lambda: entry(2).update(amount_kopecks=20_51),
        ("amount_kopecks", ROMASHKA, 2, 20_50, 20_51),
    ),
    "changed amount of a payment": (
        lambda: payment(2).update(amount_kopecks=20_51),
        ("amount_kopecks", ROMASHKA, 2, 20_51, 20_50),
    ),
    "changed amount of both": (
        lambda: change_amount(2, 20_51),
        ("balance_after_kopecks", ROMASHKA, 2, 120_51, 120_50),
    ),
    "changed balance after an entry": (
        lambda: entry(1, VASILEK).update(balance_after_kopecks=7_01),
        ("balance_after_kopecks", VASILEK, 1, 7_00, 7_01),
    ),
    "changed balance after the last entry": (
        lambda: entry(2, VASILEK).update(balance_after_kopecks=15_01),
        ("balance_after_kopecks", VASILEK, 2, 15_00, 15_01),
    ),
    "smallest possible balance after": (
        lambda: entry(2, VASILEK).update(balance_after_kopecks=-(2**63)),
        ("balance_after_kopecks", VASILEK, 2, 15_00, -(2**63)),
    ),
    "entry in another log": (
        lambda: move(entry(3)),
        ("organization", VASILEK, 3, ROMASHKA, VASILEK),
    ),
    "entry and payment in another log": (
        lambda: move(payment(3), entry(3)),
        ("balance_after_kopecks", VASILEK, 3, 18_00, 123_50),
    ),
    "changed time of an entry": (
        lambda: entry(2).update(created_at=MIDNIGHT_IN_MOSCOW),
        ("created_at", ROMASHKA, 2, ANY, str(MIDNIGHT_IN_MOSCOW)),
    ),
    "changed time of a payment": (
        lambda: payment(2).update(created_at=MIDNIGHT_IN_MOSCOW),
        ("created_at", ROMASHKA, 2, str(MIDNIGHT_IN_MOSCOW), ANY),
    ),
    "payment without an entry": (add_payment, ("entries_of_payment", ROMASHKA, None, 1, 0)),
}


@committed
def test_each_corruption_is_the_first_drift(unconstrained_ledger: None, subtests: pytest.Subtests) -> None:
    for name, (corrupt, drift) in CORRUPTIONS.items():
        with subtests.test(name), rolled_back():
            corrupt()
            assert found()[0] == drift


@committed
def test_entry_without_payment_is_drift(unconstrained_ledger: None) -> None:
    number = payment(2).get().pk
    raw_delete(payment(2))

    assert found()[0] == ("payment", ROMASHKA, 2, f"the payment with id {number}", None)


@committed
def test_log_without_organization_is_drift(unconstrained_ledger: None) -> None:
    number = organization(VASILEK).get().pk
    raw_delete(organization(VASILEK))

    assert found()[0] == ("organization", None, 1, f"the organization with id {number}", None)


@committed
def test_two_entries_of_one_payment_are_drift_even_if_the_balance_agrees(unconstrained_ledger: None) -> None:
    add_entry(4, like=3)
    entry(4).update(balance_after_kopecks=126_50)
    organization(ROMASHKA).update(last_seq=4, balance_kopecks=126_50)

    assert found() == [("entries_of_payment", ROMASHKA, None, 1, 2)]


@committed
def test_drift_at_page_borders_is_found(unconstrained_ledger: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "ORGANIZATIONS_PER_PAGE", 1)
    for rows_per_page in range(2, 7):
        monkeypatch.setattr(verification, "ROWS_PER_PAGE", rows_per_page)
        assert found() == []
        for seq in (1, 2, 3):
            with rolled_back():
                add_entry(seq, like=seq)
                assert ("duplicate_seq", ROMASHKA, seq, seq + 1, seq) in found()


@committed
def test_gap_wider_than_a_page_is_found(unconstrained_ledger: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "ROWS_PER_PAGE", 2)
    entry(3).update(seq=50, amount_kopecks=1)
    organization(ROMASHKA).update(last_seq=50)

    assert found()[0] == ("missing_entry", ROMASHKA, 3, 3, 50)


@pytest.mark.django_db
def test_entries_posted_between_two_pages_are_no_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second page is half full when it is read, and the third one starts right after it."""
    monkeypatch.setattr(verification, "ROWS_PER_PAGE", 10)
    post_payments(*(terms() for _ in range(16)))
    pages: list[int] = []

    def post_more(what: str, rows: int) -> None:
        if what == "entries":
            pages.append(rows)
            if len(pages) == 2:
                post_payments(*(terms() for _ in range(6)))

    assert list(verify(post_more)) == []
    assert pages[:2] == [9, 7]
    assert found() == []


@pytest.mark.django_db
def test_verification_takes_constant_number_of_statements(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    for inns in (1, 40):
        post_payments(*(terms(inn=f"{inn:010}") for inn in range(1, inns + 1)))
        with django_assert_num_queries(10):
            assert found() == []


def test_drift_is_formatted_as_a_sentence() -> None:
    drift = Drift("amount_kopecks", "the amount is that of its payment", 1_450_00, -5, ROMASHKA, 17)

    assert str(drift) == (
        "organization 7707083893, entry 17: the amount is that of its payment; "
        "expected 1\N{NO-BREAK SPACE}450,00\N{NO-BREAK SPACE}₽, found −0,05\N{NO-BREAK SPACE}₽"
    )
    assert str(Drift("payment", "an entry belongs to a payment", "payment 5", None)) == (
        "an entry belongs to a payment; expected payment 5, found nothing"
    )
