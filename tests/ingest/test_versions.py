"""The state machine of an operation's versions."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.versions import DELETED, UNNUMBERED, Decision, Version, decide, is_deleted
from ledger.terms import PaymentTerms
from tests.factories import terms

OPERATION_ID = uuid4()
D = DELETED
RECORDED = {
    *(Decision.FIRST, Decision.CORRECTION, Decision.DELETION, Decision.REMEMBERED),
    *(Decision.STALE, Decision.UNCLEAR),
}


def of(kopecks: int) -> PaymentTerms:
    return terms(kopecks, operation_id=OPERATION_ID)


def decisions(deliveries: Sequence[tuple[int, int]]) -> list[Decision]:
    """Return what each delivery (version, kopecks) means, as the inbox records them."""
    history: list[Version] = []
    found = []
    for number, kopecks in deliveries:
        decision = decide(history, number, of(kopecks))
        found.append(decision)
        known = {version.number for version in history}
        if decision in RECORDED and (decision is not Decision.UNCLEAR or number not in known):
            history.append(Version(number, of(kopecks), decision))
    return found


@pytest.mark.parametrize(
    ("deliveries", "expected"),
    [
        ([(1, 5), (1, 5), (1, 6)], "first duplicate conflict"),
        ([(1, 5), (2, 6), (1, 5), (2, 6)], "first correction duplicate duplicate"),
        ([(1, 5), (2, 5)], "first correction"),
        ([(5, 5), (2, 5), (2, 5), (6, 5)], "first stale duplicate correction"),
        ([(1, 5), (D, 5), (D, 9)], "first deletion duplicate"),
        ([(1, 5), (D, 5), (2, 5), (2, 5)], "first deletion correction duplicate"),
        ([(1, 5), (D, 5), (1, 5), (1, 6)], "first deletion unclear unclear"),
        ([(3, 5), (D, 5), (2, 5)], "first deletion stale"),
        ([(D, 5), (D, 5)], "remembered duplicate"),
        # Overtaken by its deletion, or restored: no one can tell.
        ([(D, 5), (1, 5), (1, 5), (2, 5)], "remembered unclear duplicate correction"),
        # A late retry of the deletion, or a second one.
        ([(1, 5), (D, 5), (2, 5), (D, 5)], "first deletion correction unclear"),
    ],
)
def test_decisions(deliveries: list[tuple[int, int]], expected: str) -> None:
    assert decisions(deliveries) == expected.split()


def test_webhook_without_a_version_is_lower_than_each() -> None:
    history = [Version(UNNUMBERED, of(5), Decision.FIRST)]

    assert decide(history, 0, of(6)) is Decision.CORRECTION
    assert decide(history, D, of(6)) is Decision.DELETION


def test_operator_restores_a_deleted_operation() -> None:
    deleted = [Version(1, of(5), Decision.FIRST), Version(D, of(5), Decision.DELETION)]
    restored = [*deleted, Version(1, of(6), Decision.APPROVED)]

    assert [is_deleted(deleted), is_deleted(restored)] == [True, False]
    assert decide(restored, 1, of(6)) is Decision.DUPLICATE
    assert decide(restored, 1, of(5)) is Decision.CONFLICT


@given(st.lists(st.tuples(st.sampled_from([1, 2, 3, D]), st.sampled_from([5, 6])), max_size=8))
def test_repeated_delivery_is_never_a_new_version(deliveries: list[tuple[int, int]]) -> None:
    twice = [each for each in deliveries for _ in range(2)]

    assert not RECORDED - {Decision.UNCLEAR} & set(decisions(twice)[1::2])


@given(st.permutations([(1, 5), (2, 6), (3, 7)]))
def test_highest_version_counts_in_any_order(deliveries: list[tuple[int, int]]) -> None:
    effective = [
        delivery
        for delivery, decision in zip(deliveries, decisions(deliveries), strict=True)
        if decision is not Decision.STALE
    ]

    assert effective[-1] == (3, 7)


def test_terms_of_a_deletion_are_of_no_account() -> None:
    history = [Version(1, of(5), Decision.FIRST), Version(D, of(5), Decision.DELETION)]

    assert decide(history, D, replace(of(5), inn="7719617469")) is Decision.DUPLICATE
