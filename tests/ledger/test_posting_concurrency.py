"""Posting from concurrent sessions, without retries, so that no error is hidden."""

from collections.abc import Callable

import pytest
from django.db import transaction

from core.db import transactions
from ledger.models import Organization
from ledger.posting import create_organizations, post
from tests.concurrency import run_concurrently
from tests.factories import (
    IVANOV,
    ROMASHKA,
    SAMPLE,
    VASILEK,
    balances,
    lock_organizations,
    posting_source,
    terms,
)

pytestmark = pytest.mark.django_db(transaction=True)
INNS = [ROMASHKA, VASILEK, IVANOV, SAMPLE]


def poster(inns: list[str], rounds: int) -> Callable[[], None]:
    """Return a function that posts `rounds` batches of one ruble for each of `inns`, in this order."""

    def post_batches() -> None:
        for _ in range(rounds):
            with transaction.atomic():
                post(posting_source(*(terms(1_00, inn=inn) for inn in inns)), lock_organizations(set(inns)))

    return post_batches


@pytest.mark.parametrize("rounds", [4, pytest.param(15, marks=pytest.mark.long)])
def test_batches_in_opposite_orders_do_not_deadlock(rounds: int) -> None:
    create_organizations(INNS)

    orders = INNS, INNS[::-1], INNS[1:], INNS[2::-1]
    run_concurrently([poster(inns, rounds) for inns in orders] * 2)

    six, eight = 6 * rounds * 1_00, 8 * rounds * 1_00
    assert balances() == {ROMASHKA: six, VASILEK: eight, IVANOV: eight, SAMPLE: six}
    assert sum(Organization.objects.values_list("last_seq", flat=True)) == 28 * rounds


def test_first_payments_of_new_organizations_do_not_deadlock() -> None:
    """Inserting organizations under locks can deadlock; posting to organizations created before must not.

    Creating the same ones may deadlock, like any INSERT of one unique key by three sessions, since the locks
    of a row that is rolled back pass to the gap. So creating is retried, as in the worker.
    """
    inns = [f"77{number:08}" for number in range(300)]

    def create_and_post(own_inns: list[str]) -> Callable[[], None]:
        def action() -> None:
            transactions.run_with_retries(lambda: create_organizations(own_inns))
            with transaction.atomic():
                post(
                    posting_source(*(terms(1_00, inn=inn) for inn in own_inns)),
                    lock_organizations(set(own_inns)),
                )

        return action

    run_concurrently(
        [
            create_and_post(inns),
            create_and_post(inns[::-1]),
            create_and_post(inns[5:]),
            create_and_post(inns[:15]),
        ]
        * 2
    )

    assert set(balances().values()) == {6_00, 8_00}
