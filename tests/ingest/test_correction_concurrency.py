"""Operators and workers correct and post at the same moment, without retries, so that no error is hidden."""

from collections.abc import Callable
from threading import Event
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models import Sum

from ingest import operator_actions
from ingest.models import ConflictingDelivery, OperatorAction, OperatorActionItem, Webhook
from ledger.models import BalanceLog, Organization
from ledger.posting import create_organizations
from ledger.verification import verify
from tests.concurrency import requires_row_locks, run_concurrently
from tests.factories import ROMASHKA, SUSPENSE, VASILEK, balances, terms, unsaved_webhook
from tests.payloads import payment_body
from worker.applying import apply_batch

pytestmark = [requires_row_locks, pytest.mark.django_db(transaction=True)]
Kind = OperatorAction.Kind
ROUNDS = 8


@pytest.fixture
def anna() -> User:
    create_organizations([ROMASHKA, SUSPENSE, VASILEK])
    return User.objects.create_user("anna")


def posted(inn: str, count: int = 1) -> list[Webhook]:
    """Post `count` payments of 100 rubles each."""
    inserted = [unsaved_webhook(terms(100_00, inn=inn)) for _ in range(count)]
    Webhook.objects.bulk_create(inserted)
    while apply_batch(100):
        pass
    operation_ids = [webhook.operation_id for webhook in inserted]
    return list(Webhook.objects.filter(operation_id__in=operation_ids).order_by("id"))


def action(by: User, kind: Kind, webhooks: list[Webhook], inn: str = "") -> int:
    created = OperatorAction(kind=kind, by=by, by_name="anna", inn=inn)
    return operator_actions.create_for_ids(created, [each.pk for each in webhooks], "a mistake").pk


def runner(action_id: int) -> Callable[[], list[str]]:
    """Return a function that runs the action and returns its outcomes."""

    def run() -> list[str]:
        while operator_actions.run_chunk(action_id, wait=True):
            pass
        items = OperatorActionItem.objects.filter(action=action_id).order_by("webhook_id")
        return list(items.values_list("outcome", flat=True))

    return run


@pytest.mark.parametrize(
    ("first", "second", "entries"),
    [
        (Kind.REVERSE, Kind.REVERSE, {2}),
        (Kind.ASSIGN, Kind.ASSIGN, {3}),
        # The second comes too late or, if it was planned after the first, reverses the replacement.
        (Kind.ASSIGN, Kind.REVERSE, {2, 3, 4}),
    ],
)
def test_two_operators_correct_the_same_payments_once(
    anna: User, first: Kind, second: Kind, entries: set[int]
) -> None:
    webhooks = posted(SUSPENSE, ROUNDS)
    actions = [action(anna, first, webhooks, ROMASHKA), action(anna, second, webhooks, VASILEK)]

    outcomes = run_concurrently([runner(each) for each in actions])

    for both in zip(*outcomes, strict=True):
        assert both.count("done") == 1 or first != second
        assert set(both) <= {"done", "refused"}
    assert Organization.objects.aggregate(sum=Sum("balance_kopecks"))["sum"] == sum_of_log()
    assert BalanceLog.objects.count() // ROUNDS in entries
    assert list(verify()) == []


def test_opposite_replacements_neither_deadlock_nor_are_seen_in_part(anna: User) -> None:
    """Both lock both organizations, in the order of their keys. All money stays in them."""
    there, back = posted(ROMASHKA, ROUNDS), posted(VASILEK, ROUNDS)
    for webhooks, inn in ((there, VASILEK), (back, ROMASHKA)):
        for webhook in webhooks:
            body = payment_body(webhook.terms, payer_inn=inn)
            ConflictingDelivery.objects.create(webhook=webhook, difference="inn", body=body)
    actions = [action(anna, Kind.REPLACE, each) for each in (there[::2], there[1::2], back[::2], back[1::2])]
    finished, ended = Event(), list[int]()

    def run_all(action_id: int) -> Callable[[], set[Any]]:
        def run() -> set[Any]:
            try:
                return set(runner(action_id)())
            finally:
                ended.append(action_id)
                if len(ended) == len(actions):
                    finished.set()

        return run

    *outcomes, in_statements, in_snapshots = run_concurrently(
        [*map(run_all, actions), lambda: seen_until(finished), lambda: seen_until(finished, snapshot=True)]
    )

    total = 2 * ROUNDS * 100_00
    assert outcomes == [{"done"}] * 4
    assert in_statements == in_snapshots == {(total, total)}
    assert balances() == {ROMASHKA: total // 2, VASILEK: total // 2, SUSPENSE: 0}
    assert list(verify()) == []


def seen_until(finished: Event, *, snapshot: bool = False) -> set[Any]:
    """Read the sums of all balances and all entries until `finished`; return all that was seen.

    They are read in one statement, or in two of one transaction with a snapshot.
    """
    seen = set[Any]()
    while True:
        is_last = finished.is_set()
        if snapshot:
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            with transaction.atomic():
                balance = Organization.objects.aggregate(sum=Sum("balance_kopecks"))["sum"]
                seen.add((int(balance), sum_of_log()))
        else:
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT (SELECT SUM(balance_kopecks) FROM ledger_organization),"
                    " (SELECT SUM(amount_kopecks) FROM ledger_balancelog)"
                )
                seen.add(tuple(map(int, cursor.fetchone())))
        if is_last:
            return seen


def sum_of_log() -> int:
    return int(BalanceLog.objects.aggregate(sum=Sum("amount_kopecks"))["sum"])


def test_reversals_and_batches_of_one_organization_do_not_deadlock(anna: User) -> None:
    webhooks = posted(ROMASHKA, 2 * ROUNDS)
    reversals = [action(anna, Kind.REVERSE, webhooks[:ROUNDS]), action(anna, Kind.REVERSE, webhooks[ROUNDS:])]
    Webhook.objects.bulk_create(unsaved_webhook(terms(1_00)) for _ in range(100))

    def apply_all() -> list[str]:
        while Webhook.objects.queued().exists():
            apply_batch(5)
        return []

    outcomes = run_concurrently([*map(runner, reversals), apply_all, apply_all])

    assert outcomes[:2] == [["done"] * ROUNDS] * 2
    assert balances()[ROMASHKA] == 100 * 1_00
    assert list(verify()) == []
