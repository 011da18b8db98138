"""I12: posting a line and the bank's own webhook, in any order of commit, credit once."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from threading import Event
from typing import Any

import pytest
from django.test import Client

from core.db import transactions
from ingest import operator_actions, version_storage
from ingest.inbox import Delivery
from ingest.models import (
    ConflictingDelivery,
    OperationVersion,
    OperatorAction,
    SuspectedDuplicate,
    Webhook,
)
from ingest.versions import DELETED
from ledger import corrections
from statements import actions, line_posting
from statements.models import Bucket
from tests.concurrency import requires_row_locks, run_concurrently
from tests.factories import terms
from tests.payloads import payment_body
from tests.reconciliation.settlement import (
    OWN,
    apply_all,
    apply_and_match,
    assert_books_are_right,
    filled,
    import_lines,
    line,
    lines_in,
    money,
    notify,
    operator,
    run,
    settle,
)
from worker import tasks
from worker.applying import apply_batch

Kind = OperatorAction.Kind
R = "0033003303"
KOPECKS = 10_00
LINES = 6


def created() -> OperatorAction:
    return actions.create(Kind.POST, lines_in(Bucket.MISSING_WEBHOOK), operator(), "not notified")


def one_line() -> None:
    import_lines(line(R, "PAY-1", KOPECKS), came_in=KOPECKS)


def post() -> None:
    settle(Kind.POST, lines_in(Bucket.MISSING_WEBHOOK, Bucket.UNIDENTIFIED))


STEPS: dict[str, Callable[[], object]] = {
    "post": lambda: run(OperatorAction.objects.get()),
    "notify": lambda: notify(R, "1", KOPECKS, day=13),
    "apply": apply_all,
}


@pytest.mark.django_db
@pytest.mark.parametrize("order", sorted(set(itertools.permutations(["post", "notify", "apply", "apply"]))))
def test_payment_is_credited_once_in_every_order(order: tuple[str, ...]) -> None:
    one_line()
    created()

    for step in order:
        STEPS[step]()
    apply_and_match()

    assert money() == {R: KOPECKS}
    assert filled() == {"matched": (1, KOPECKS)}
    assert_books_are_right()


@pytest.mark.django_db
@pytest.mark.parametrize("day", [6, 16, 21])
def test_late_webhook_is_merged_if_it_is_near_the_document_or_its_booking(day: int) -> None:
    """As the matching would have it, and as a line isn't posted if the webhook was there before."""
    import_lines(line(R, "1", KOPECKS, Дата="06.03.2026"), came_in=KOPECKS)
    post()
    notify(R, "1", KOPECKS, day=day)
    apply_and_match()

    assert money() == {R: KOPECKS}
    assert filled() == {"matched": (1, KOPECKS)}


@pytest.mark.django_db(transaction=True)
def test_late_webhook_is_merged_and_the_bank_hears_success(client: Client) -> None:
    one_line()
    post()
    apply_all()
    posted = Webhook.objects.get()
    late = notify(R, "1", KOPECKS)
    apply_all()

    late.refresh_from_db()
    assert (late.status, late.merged_into.webhook) == ("merged", posted)
    for status in ("already processed",):  # the bank repeats it
        body = payment_body(late.terms)
        response = client.post("/api/webhook/bank/", body, content_type="application/json")
        assert (response.status_code, response.json()) == (200, {"status": status})
    answer = client.get(f"/api/operations/{late.operation_id}/").json()
    assert answer["status"] == "merged"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("version", "kopecks"), [(2, KOPECKS + 1), (DELETED, KOPECKS)])
def test_later_version_of_a_merged_webhook_is_left_to_an_operator(version: int, kopecks: int) -> None:
    one_line()
    post()
    apply_all()
    at = datetime(2026, 3, 16, 9, tzinfo=UTC)
    late = terms(KOPECKS, inn=R, document_number="1", document_date=at)
    for number, payment in ((1, late), (version, replace(late, amount_kopecks=kopecks))):
        version_storage.store(payment, number, Delivery(payment_body(payment, version=number)))
        tasks.apply_received()

    merged = Webhook.objects.get(status=Webhook.Status.MERGED)
    assert ConflictingDelivery.objects.get(resolved_by=None).webhook_id == merged.pk
    assert OperationVersion.objects.get(version=version).outcome == OperationVersion.Outcome.OPERATOR
    assert money() == {R: KOPECKS}
    assert_books_are_right()


@pytest.mark.django_db
def test_each_payment_merges_one() -> None:
    one_line()
    post()
    notify(R, "1", KOPECKS)
    notify(R, "1", KOPECKS)
    apply_and_match()

    assert sorted(Webhook.objects.values_list("status", flat=True)) == ["applied", "applied", "merged"]
    assert filled() == {"matched": (1, KOPECKS), "duplicate": (1, KOPECKS)}
    assert SuspectedDuplicate.objects.get().is_shown_once


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("number", "kopecks", "day"), [("2", KOPECKS, 16), ("1", KOPECKS + 1, 16), ("1", KOPECKS, 10)]
)
def test_other_payment_is_not_merged(number: str, kopecks: int, day: int) -> None:
    one_line()
    post()
    notify(R, number, kopecks, day=day)
    apply_all()

    assert money() == {R: KOPECKS + kopecks}


@pytest.mark.django_db
def test_nearest_payment_merges_first() -> None:
    import_lines(
        line(R, "1", KOPECKS, Дата="14.03.2026"),
        line(R, "1", KOPECKS, Дата="16.03.2026"),
        came_in=2 * KOPECKS,
    )
    post()
    late = notify(R, "1", KOPECKS, day=15), notify(R, "1", KOPECKS, day=16), notify(R, "1", KOPECKS, day=14)
    apply_all()

    days = [Webhook.objects.get(pk=each.pk).status for each in late]
    assert sorted(days) == ["applied", "merged", "merged"]
    assert money() == {R: 3 * KOPECKS}


@pytest.mark.django_db
def test_payment_that_was_taken_back_merges_none() -> None:
    one_line()
    post()
    apply_all()
    corrections.correct(Webhook.objects.get().operation_id, corrections.reversal)
    notify(R, "1", KOPECKS)
    apply_and_match()

    assert money() == {R: KOPECKS}
    assert filled() == {"matched": (1, KOPECKS)}


@pytest.mark.django_db
@pytest.mark.parametrize("key", [f"@{OWN}", "@unknown"])
def test_payment_in_suspense_merges_a_webhook_without_a_payer(key: str) -> None:
    import_lines(line("", "1", KOPECKS), came_in=KOPECKS)
    post()
    notify(key, "1", KOPECKS)
    apply_and_match()

    assert money() == {f"@{OWN}": KOPECKS}
    assert filled() == {"matched": (1, KOPECKS)}


@requires_row_locks
@pytest.mark.django_db(transaction=True)
def test_webhook_between_the_last_check_and_the_commit_is_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The organization's lock is held meanwhile, so that no worker applies it first."""
    one_line()
    action = created()
    checked, tried = Event(), Event()
    insert = line_posting._post

    def post_slowly(*arguments: Any) -> None:
        checked.set()
        assert tried.wait(60)
        insert(*arguments)

    def bank() -> list[str]:
        assert checked.wait(60)
        notify(R, "1", KOPECKS)
        apply_batch(10)
        tried.set()
        return []

    monkeypatch.setattr(line_posting, "_post", post_slowly)
    run_concurrently([partial(run, action), bank])
    apply_and_match()

    assert money() == {R: KOPECKS}
    assert sorted(Webhook.objects.values_list("status", flat=True)) == ["applied", "merged"]
    assert_books_are_right()


@pytest.mark.django_db(transaction=True)
def test_operators_bank_and_workers_together_credit_each_line_once() -> None:
    import_lines(*(line(R, str(n), KOPECKS) for n in range(LINES)), came_in=LINES * KOPECKS)
    both = [created(), created()]
    over = Event()

    def click(action: OperatorAction) -> None:
        while transactions.run_with_retries(partial(operator_actions.run_chunk, action.pk, wait=True)):
            pass

    def bank() -> None:
        try:
            for n in range(LINES):
                transactions.run_with_retries(partial(notify, R, str(n), KOPECKS, day=16 + n % 3))
        finally:
            over.set()  # also if SQLite was locked for too long: the workers wait for it

    def worker() -> None:
        while not over.is_set() or apply_batch(2):
            apply_batch(2)

    run_concurrently([*(partial(click, action) for action in both), bank, worker, worker])
    apply_and_match()

    assert money() == {R: LINES * KOPECKS}
    assert filled() == {"matched": (LINES, LINES * KOPECKS)}
    assert_books_are_right()
