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
ROUNDS = 15


def poster(inns: list[str]) -> Callable[[], None]:
    """Return a function that posts ROUNDS batches of one ruble for each of `inns`, in this order."""

    def post_batches() -> None:
        for _ in range(ROUNDS):
            with transaction.atomic():
                post(posting_source(*(terms(1_00, inn=inn) for inn in inns)), lock_organizations(set(inns)))

    return post_batches


def test_batches_in_opposite_orders_do_not_deadlock() -> None:
    create_organizations(INNS)

    run_concurrently([poster(INNS), poster(INNS[::-1]), poster(INNS[1:]), poster(INNS[2::-1])] * 2)

    six, eight = 6 * ROUNDS * 1_00, 8 * ROUNDS * 1_00
    assert balances() == {ROMASHKA: six, VASILEK: eight, IVANOV: eight, SAMPLE: six}
    assert sum(Organization.objects.values_list("last_seq", flat=True)) == 28 * ROUNDS


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
