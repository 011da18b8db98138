"""Versions of operations, from the endpoint to the ledger: any order, repeated, with crashes."""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, DataError, IntegrityError, connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ingest import arrivals, operator_actions, version_corrections, version_storage
from ingest.banks.events import CreditEvent
from ingest.batch import store_batch
from ingest.inbox import Arrival, Delivery, StoreResult
from ingest.models import ConflictingDelivery, OperationVersion, OperatorAction, OperatorActionItem, Webhook
from ingest.parsing import read
from ingest.reconciliation import reconcile
from ingest.versions import DELETED
from ledger.models import BalanceLog
from ledger.verification import verify
from tests import corrections, version_scenarios
from tests.concurrency import run_concurrently
from tests.factories import ROMASHKA, VASILEK, balances, make_webhook, terms
from tests.payloads import payment_body
from worker import applying, sweeper, tasks

pytestmark = pytest.mark.django_db(transaction=True)
SEQUENCES = Path(__file__).parent.parent / "version_sequences.json"
D = DELETED
Kind = OperatorAction.Kind


def arrival(version: int, kopecks: int, operation_id: UUID, inn: str = ROMASHKA) -> Arrival:
    payment = terms(kopecks, operation_id=operation_id, inn=inn)
    body = payment_body(payment, version=version)
    return Arrival(Delivery(body), read(body), body)


def deliver(operation_id: UUID, *versions: tuple[int, int], inn: str = ROMASHKA) -> None:
    """Deliver versions (number, kopecks), with the worker after each."""
    for number, kopecks in versions:
        arrivals.store_arrival(arrival(number, kopecks, operation_id, inn))
        tasks.apply_received()


def amounts() -> list[int]:
    return list(BalanceLog.objects.order_by("id").values_list("amount_kopecks", flat=True))


def conflicts() -> list[str]:
    """Return the differences of the open conflicts."""
    rows = ConflictingDelivery.objects.filter(resolved_by=None).order_by("id")
    return list(rows.values_list("difference", flat=True))


def operate(kind: Kind, operation_id: UUID) -> str:
    """Carry out an operator action; return its outcome."""
    by = User.objects.get_or_create(username="anna")[0]
    webhook = Webhook.objects.get(operation_id=operation_id)
    action = operator_actions.create(kind, [webhook.pk], by, "asked the bank")
    while operator_actions.run_chunk(action.pk):
        pass
    return OperatorActionItem.objects.get(action=action).outcome


def assert_ledger_is_right() -> None:
    assert not [*verify(), *reconcile()]


@pytest.mark.parametrize("scenario", json.loads(SEQUENCES.read_text()), ids=lambda each: each["name"])
def test_sequence(scenario: dict[str, Any]) -> None:
    assert version_scenarios.differences(scenario) == []
    assert_ledger_is_right()


def test_planted_error_in_a_scenario_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [corrected] = [each for each in json.loads(SEQUENCES.read_text()) if each["name"] == "corrected"]
    corrected["lines_rubles"]["ROM"][-1] = 90.01
    file = tmp_path / "planted.json"
    file.write_text(json.dumps([corrected]))

    assert corrections.report(file)

    assert "lines_rubles {'ROM': ['100.00', '-100.00', '90.00']}, expected" in capsys.readouterr().out


def test_version_of_a_webhook_that_came_without_one_corrects_it() -> None:
    webhook = make_webhook(terms(100_00))
    deliver(webhook.operation_id, (1, 90_00))

    assert amounts() == [100_00, -100_00, 90_00]
    assert_ledger_is_right()


def test_plain_delivery_of_a_versioned_operation_is_compared_with_the_first() -> None:
    operation_id = uuid4()
    deliver(operation_id, (1, 100_00), (2, 90_00))
    payment = terms(100_00, operation_id=operation_id)

    result = arrivals.store_credit(CreditEvent(payment), Delivery(payment_body(payment)))

    assert result is StoreResult.DUPLICATE
    assert amounts() == [100_00, -100_00, 90_00]


def test_deletion_of_an_unknown_operation_is_remembered_until_an_operator_posts_it() -> None:
    operation_id = uuid4()
    deliver(operation_id, (D, 100_00), (1, 100_00), (1, 100_00))
    assert amounts() == []
    assert Webhook.objects.get().status == "failed"

    assert operate(Kind.REPLAY, operation_id) == "done"
    deliver(operation_id, (1, 100_00), (2, 90_00))

    assert amounts() == [100_00, -100_00, 90_00]
    assert conflicts() == []
    assert_ledger_is_right()


def test_unclear_restoration_is_posted_by_an_operator_and_then_corrected_automatically() -> None:
    operation_id = uuid4()
    deliver(operation_id, (1, 100_00), (D, 100_00), (1, 100_00))
    assert conflicts() == ["restoration_unclear"]

    assert operate(Kind.REPLACE, operation_id) == "done"
    deliver(operation_id, (1, 100_00), (2, 90_00))

    assert amounts() == [100_00, -100_00, 100_00, -100_00, 90_00]
    assert conflicts() == []
    assert_ledger_is_right()


def test_repeated_deletion_of_a_restored_operation_is_carried_out_by_an_operator() -> None:
    operation_id = uuid4()
    deliver(operation_id, (1, 100_00), (D, 100_00), (2, 100_00), (D, 100_00))
    assert conflicts() == ["restoration_unclear"]

    assert operate(Kind.REPLACE, operation_id) == "done"

    assert amounts() == [100_00, -100_00, 100_00, -100_00]
    assert_ledger_is_right()


def test_operation_that_an_operator_corrected_is_left_to_an_operator() -> None:
    operation_id = uuid4()
    deliver(operation_id, (1, 100_00))
    assert operate(Kind.REVERSE, operation_id) == "done"

    deliver(operation_id, (1, 100_00), (2, 90_00))
    assert (amounts(), conflicts()) == ([100_00, -100_00], ["version"])
    assert operate(Kind.REPLACE, operation_id) == "done"
    deliver(operation_id, (3, 80_00))

    assert amounts() == [100_00, -100_00, 90_00, -90_00, 80_00]
    assert conflicts() == []
    assert_ledger_is_right()


def test_deletion_of_what_an_operator_reversed_changes_nothing() -> None:
    operation_id = uuid4()
    deliver(operation_id, (1, 100_00))
    operate(Kind.REVERSE, operation_id)
    deliver(operation_id, (D, 100_00))

    assert (amounts(), conflicts()) == ([100_00, -100_00], [])


def test_correction_of_a_failed_webhook_waits_and_of_a_dismissed_one_is_left_to_an_operator() -> None:
    failed, dismissed = (make_webhook(terms(100_00), status="failed").operation_id for _ in range(2))
    deliver(failed, (1, 90_00))
    deliver(dismissed, (1, 90_00), (D, 90_00))
    assert not version_corrections.due().exists()

    operate(Kind.DISMISS, dismissed)
    operate(Kind.REPLAY, failed)
    tasks.apply_received()

    assert amounts() == [100_00, -100_00, 90_00]
    assert conflicts() == ["version"]
    assert_ledger_is_right()


def test_version_from_another_source_is_a_conflict() -> None:
    operation_id = uuid4()
    deliver(operation_id, (1, 100_00))
    other = arrival(2, 90_00, operation_id)

    assert arrivals.store_arrival(other._replace(delivery=Delivery(b"{}", "tochka"))) is StoreResult.CONFLICT

    assert conflicts() == ["source"]


def test_versions_of_an_operation_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version_storage, "VERSIONS_MAX", 2)
    deliver(uuid4(), (1, 100_00), (2, 90_00), (3, 80_00), (2, 90_00))

    assert (amounts(), conflicts()) == ([100_00, -100_00, 90_00], ["version"])


@pytest.mark.parametrize("overflow", [IntegrityError, DataError])  # on SQLite, on the servers
def test_correction_that_would_overflow_a_balance_is_left_to_an_operator(
    overflow: type[DatabaseError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise overflow

    operation_id = uuid4()
    deliver(operation_id, (1, 100_00))
    monkeypatch.setattr(version_corrections.corrections, "correct", refuse)
    deliver(operation_id, (2, 90_00))

    assert (amounts(), conflicts()) == ([100_00], ["version"])


def test_all_versions_of_a_batch_are_stored_and_plain_deliveries_beside_them() -> None:
    operation_id, plain = uuid4(), terms(5_00, inn=VASILEK)
    batch = [
        arrival(1, 100_00, operation_id),
        Arrival(Delivery(payment_body(plain)), CreditEvent(plain), b""),
        arrival(2, 90_00, operation_id),
        arrival(1, 100_00, operation_id),
    ]

    created, duplicate = StoreResult.CREATED, StoreResult.DUPLICATE
    assert store_batch(batch) == [created, created, created, duplicate]
    tasks.apply_received()

    assert balances() == {ROMASHKA: 90_00, VASILEK: 5_00}


def test_two_versions_at_once_are_decided_one_after_the_other() -> None:
    for _ in range(5):
        operation_id = uuid4()
        versions = [arrival(1, 100_00, operation_id), arrival(2, 90_00, operation_id)]
        run_concurrently([lambda each=each: store_batch([each]) for each in versions])  # type: ignore[misc]
        tasks.apply_received()

        rows = OperationVersion.objects.filter(operation_id=operation_id).order_by("position")
        assert [row.decision for row in rows] in (["first", "correction"], ["first", "stale"])
        assert rows[0].position == 0
    assert balances() == {ROMASHKA: 5 * 90_00}
    assert_ledger_is_right()


def test_same_version_at_once_is_stored_once() -> None:
    operation_id = uuid4()
    deliver(operation_id, (1, 100_00))

    def store() -> StoreResult | None:
        return arrivals.store_arrival(arrival(2, 90_00, operation_id))

    results = run_concurrently([store] * 4)

    assert sorted(result.value for result in results if result) == ["created", *["duplicate"] * 3]


def test_concurrent_workers_correct_once() -> None:
    operation_id = uuid4()
    for number, kopecks in [(1, 100_00), (2, 90_00), (3, 80_00)]:
        arrivals.store_arrival(arrival(number, kopecks, operation_id))

    run_concurrently([tasks.apply_received] * 3)
    tasks.apply_received()

    assert amounts() == [100_00, -100_00, 90_00, -90_00, 80_00]
    assert_ledger_is_right()


STATEMENTS_MAX = 60  # of a correction


class Killed(BaseException):
    """The process dies."""


@pytest.mark.parametrize("step", [6, pytest.param(1, marks=pytest.mark.long)])
def test_crash_at_each_statement_leaves_the_correction_due(step: int) -> None:
    """Kill the worker before a statement of a correction to another payer: each, or a few and the last."""
    operations = [(uuid4(), f"7{number:09}", f"8{number:09}") for number in range(STATEMENTS_MAX)]
    store_batch([arrival(1, 100_00, key, payer) for key, payer, _ in operations])
    tasks.apply_received()

    def correct_until(statement: int) -> int:
        key, _, other = operations[statement]
        arrivals.store_arrival(arrival(2, 90_00, key, other))
        return statements_until(statement)

    def lines(number: int) -> list[list[float]]:
        return [version_scenarios.lines(inn) for inn in operations[number][1:]]

    last = correct_until(0)
    assert lines(0) == [[100, -100], [90]]
    for number in sorted({*range(1, last, step), *range(last - 3, last + 1)}):
        assert correct_until(number) >= number  # with those that roll back
        assert lines(number) == [[100], []], f"at statement {number}"
        version_corrections.run_due(time.monotonic() + 60)
        assert lines(number) == [[100, -100], [90]]
    assert_ledger_is_right()


def statements_until(fatal: int) -> int:
    """Apply what is due, and die before the statement `fatal`; return the number of statements."""
    count = 0

    def die(execute: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == fatal:
            raise Killed
        return execute(*arguments)

    try:
        with connection.execute_wrapper(die), suppress(Killed):
            version_corrections.run_due(time.monotonic() + 60)
    finally:
        connection.close()
    return count


def test_due_versions_are_left_to_the_next_task_when_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    operations = [uuid4(), uuid4()]
    for version, kopecks in ((1, 100_00), (2, 90_00)):
        store_batch([arrival(version, kopecks, each) for each in operations])
        if version == 1:
            tasks.apply_received()

    rings: list[None] = []
    monkeypatch.setattr(tasks.doorbell, "ring", lambda: rings.append(None))
    with monkeypatch.context() as patch:
        patch.setattr(tasks, "SECONDS_MAX", -1)
        tasks.apply_received()
    assert (version_corrections.due().count(), len(rings)) == (1, 1)

    tasks.apply_received()

    assert (version_corrections.due().count(), len(rings)) == (0, 1)
    assert balances() == {ROMASHKA: 180_00}


def test_sweeper_applies_a_correction_whose_ring_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    operation_id = uuid4()
    deliver(operation_id, (1, 100_00))
    arrivals.store_arrival(arrival(2, 90_00, operation_id))
    monkeypatch.setattr(sweeper.doorbell, "ring_now", lambda *_: False)

    sweeper.sweep()

    assert amounts() == [100_00, -100_00, 90_00]


def test_failing_version_does_not_delay_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    broken, other = uuid4(), uuid4()
    store_batch([arrival(1, 100_00, each) for each in (broken, other)])
    tasks.apply_received()
    store_batch([arrival(2, 90_00, each) for each in (broken, other)])
    correct = version_corrections.corrections.correct

    def fail(operation_id: UUID, *rest: Any) -> Any:
        if operation_id == broken:
            raise RuntimeError
        return correct(operation_id, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(version_corrections.corrections, "correct", fail)
        tasks.apply_received()
    assert amounts() == [100_00, 100_00, -100_00, 90_00]
    tasks.apply_received()

    assert balances() == {ROMASHKA: 180_00}


def expected_lines(deliveries: Sequence[tuple[int, str, int]]) -> list[tuple[str, int]]:
    """Return the entries (payer, kopecks) that deliveries (version, payer, kopecks) result in.

    The rules of the specification, written without the code's state machine.
    """
    lines: list[tuple[str, int]] = []
    seen: set[int] = set()
    now: tuple[str, int] | None = None
    has_failed = False  # an unclear first version, which no one replays here
    for version, payer, kopecks in deliveries:
        highest = max(seen - {D}, default=-1)
        if version == D and D not in seen and now:
            lines.append((now[0], -now[1]))
            now = None
        elif version != D and highest == -1:
            has_failed = D in seen
            now = None if has_failed else (payer, kopecks)
            lines += [] if now is None else [now]
        elif version != D and version > highest and not has_failed and now != (payer, kopecks):
            lines += [(now[0], -now[1])] if now else []
            now = payer, kopecks
            lines.append(now)
        seen.add(version)
    return lines


VERSION = st.tuples(st.sampled_from([1, 2, 3, D]), st.sampled_from("AB"), st.sampled_from([1_00, 2_00]))


@pytest.mark.parametrize("examples", [6, pytest.param(30, marks=pytest.mark.long)])
def test_random_deliveries_end_as_the_model_says(examples: int) -> None:
    crashes = st.lists(st.integers(0, 25), max_size=7)
    deliver_all = given(st.lists(VERSION, max_size=7), crashes)(deliver_with_crashes)
    hypothesis_settings(max_examples=examples)(deliver_all)()


def deliver_with_crashes(deliveries: list[tuple[int, str, int]], crashes: list[int]) -> None:
    """Deliver each once or twice; the worker dies at a random statement, or applies, or does not run."""
    operation_id = uuid4()
    inns = {payer: f"{abs(hash((operation_id, payer))) % 10**10:010}" for payer in "AB"}
    for number, (version, payer, kopecks) in enumerate(deliveries):
        arrivals.store_arrival(arrival(version, kopecks, operation_id, inns[payer]))
        if number < len(crashes):
            statements_until(crashes[number])
        elif number % 2:
            tasks.apply_received()
            arrivals.store_arrival(arrival(version, kopecks, operation_id, inns[payer]))
    tasks.apply_received()

    expected = expected_lines(deliveries)
    for payer, inn in inns.items():
        assert version_scenarios.lines(inn) == [kopecks / 100 for each, kopecks in expected if each == payer]
    assert not version_corrections.due().exists()


def test_plain_payments_cost_one_query_for_versions_per_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applying, "reset_queries", lambda: None)  # it would reset the count
    for kopecks in range(1, 5):
        make_webhook(terms(kopecks))

    with CaptureQueriesContext(connection) as queries:
        tasks.apply_received()

    assert balances() == {ROMASHKA: 10}
    about_versions = [query for query in queries if "ingest_operationversion" in query["sql"]]
    assert len(about_versions) == 1
