from collections import Counter
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, Permission, User
from django.db import DatabaseError, connection, transaction

from ingest import action_progress, doorbell, inbox, operator_actions
from ingest.exceptions import NothingToDo, StaleConfirmation
from ingest.models import ConflictingDelivery, OperatorAction, OperatorActionItem, Webhook
from ledger import triggers
from tests.concurrency import requires_row_locks, run_concurrently
from tests.corruption import raw_delete
from tests.factories import balances, make_webhook, terms
from worker import sweeper, tasks

pytestmark = pytest.mark.django_db(transaction=True)
Kind = OperatorAction.Kind
REPLAY, DISMISS, RESOLVE = Kind.REPLAY, Kind.DISMISS, Kind.RESOLVE
REASON = "the bug is repaired"


@pytest.fixture
def anna() -> User:
    return User.objects.create_superuser("anna")


def failed() -> Webhook:
    return make_webhook(status=Webhook.Status.FAILED, attempts=5, last_error="it broke")


def status(webhook: Webhook) -> str:
    return Webhook.objects.get(pk=webhook.pk).status


def run_action(kind: Kind, *webhooks: Webhook, by: User) -> dict[str, int]:
    """Create an action and run it to the end; return the number of webhooks by outcome."""
    action = operator_actions.create(kind, [webhook.pk for webhook in webhooks], by, REASON)
    while operator_actions.run_chunk(action.pk, wait=True):
        pass
    return dict(action_progress.progress(action).outcomes)


def make_conflict(webhook: Webhook) -> ConflictingDelivery:
    return ConflictingDelivery.objects.create(webhook=webhook, difference="amount_kopecks", body=b"{}")


def test_dismissed_webhook_cannot_be_replayed(anna: User) -> None:
    webhook, applied = failed(), make_webhook(status="applied")

    assert run_action(DISMISS, webhook, applied, by=anna) == {"done": 1, "applied": 1}
    assert run_action(REPLAY, webhook, by=anna) == {"dismissed": 1}

    assert (status(webhook), status(applied)) == ("dismissed", "applied")


def test_resolution_closes_conflicts_and_leaves_later_ones_open(anna: User) -> None:
    webhook, without = make_webhook(), make_webhook()
    make_conflict(webhook), make_conflict(webhook)

    assert run_action(RESOLVE, webhook, without, by=anna) == {"done": 1, "resolved": 1}

    later = make_conflict(webhook)
    assert list(ConflictingDelivery.objects.filter(resolved_by=None)) == [later]
    assert balances() == {}
    assert status(webhook) == "received"


def test_conflict_received_after_resolution_is_created_stays_open(
    anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator_actions, "CHUNK_WEBHOOKS", 1)
    webhooks = [make_webhook(), make_webhook()]
    confirmed = [make_conflict(webhook) for webhook in webhooks]
    action = operator_actions.create(RESOLVE, [webhook.pk for webhook in webhooks], anna, REASON)
    operator_actions.run_chunk(action.pk)

    later = [make_conflict(webhook) for webhook in webhooks]
    while operator_actions.run_chunk(action.pk):
        pass

    assert action_progress.progress(action).outcomes == {"done": 2}
    assert list(ConflictingDelivery.objects.filter(resolved_by=None)) == later
    assert list(ConflictingDelivery.objects.filter(resolved_by=action)) == confirmed


@requires_row_locks
def test_concurrent_resolutions_do_not_deadlock_and_resolve_each_conflict_once(anna: User) -> None:
    webhooks = [make_webhook() for _ in range(20)]
    for webhook in webhooks * 3:
        make_conflict(webhook)

    results = run_concurrently([lambda: run_action(RESOLVE, *webhooks, by=anna)] * 4)

    assert sum(outcomes.get("done", 0) for outcomes in results) == 20
    assert not ConflictingDelivery.objects.filter(resolved_by=None).exists()


@requires_row_locks
def test_concurrent_deliveries_and_resolutions_do_not_deadlock(anna: User, settings: Any) -> None:
    settings.DELIVERY_RECORDS_MAX = 3
    webhooks = [make_webhook() for _ in range(5)]

    def flood(seed: int) -> int:
        for number in range(40):
            webhook = webhooks[number % 5]
            inbox.store(
                terms(2_00, operation_id=webhook.operation_id), inbox.Delivery(b"%d %d" % (seed, number))
            )
            inbox.store(webhook.terms, inbox.Delivery(b"{}"))
        return 0

    def resolve() -> int:
        return sum(run_action(RESOLVE, *webhooks, by=anna).get("done", 0) for _ in range(10))

    run_concurrently([lambda: flood(1), lambda: flood(2), resolve, resolve])
    resolve()

    assert ConflictingDelivery.objects.count() == 80
    assert not ConflictingDelivery.objects.filter(resolved_by=None).exists()
    assert webhooks[0].duplicate_deliveries.model.objects.count() == 3


def test_dismissal_skips_webhook_replayed_and_failed_again_before_its_chunk(anna: User) -> None:
    webhook, other = failed(), failed()
    dismissal = operator_actions.create(DISMISS, [webhook.pk, other.pk], anna, REASON)
    run_action(REPLAY, webhook, by=anna)
    Webhook.objects.filter(pk=webhook.pk).update(status="failed")  # of another cause

    operator_actions.run_chunk(dismissal.pk)

    assert action_progress.progress(dismissal).outcomes == {"failed": 1, "done": 1}
    assert (status(webhook), status(other)) == ("failed", "dismissed")


def test_stale_confirmation_creates_no_action(anna: User) -> None:
    webhooks = [failed(), failed()]
    confirmed = operator_actions.state_digest(DISMISS, Webhook.objects.failed())
    failed()

    with pytest.raises(StaleConfirmation):
        operator_actions.create_for_queryset(DISMISS, Webhook.objects.all(), anna, REASON, confirmed)
    assert not OperatorAction.objects.exists()
    assert not OperatorActionItem.objects.exists()

    action = operator_actions.create(
        DISMISS, [webhook.pk for webhook in webhooks], anna, REASON, confirmed=confirmed
    )
    operator_actions.run_chunk(action.pk)
    assert action_progress.progress(action).outcomes == {"done": 2}


@pytest.mark.parametrize("reason", ["", "  \n"])
def test_action_without_reason_is_refused(anna: User, reason: str) -> None:
    with pytest.raises(ValueError, match="reason"):
        operator_actions.create(REPLAY, [failed().pk], anna, reason)
    assert not OperatorAction.objects.exists()


def test_action_on_queryset_has_the_webhooks_matching_at_creation(anna: User) -> None:
    webhooks = [failed() for _ in range(3)]
    make_webhook(status="applied")

    action = operator_actions.create_for_queryset(
        DISMISS, Webhook.objects.failed().order_by("-id"), anna, f" {REASON} "
    )
    failed()

    rows = OperatorActionItem.objects.order_by("id").values_list("action", "webhook", "outcome")
    assert list(rows) == [(action.pk, webhook.pk, "") for webhook in webhooks]
    assert (action.by, action.by_name, action.reason) == (anna, "anna", REASON)


def test_action_on_queryset_is_limited_to_webhooks_max(anna: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator_actions, "WEBHOOKS_MAX", 2)
    webhooks = [failed() for _ in range(3)]

    action = operator_actions.create_for_queryset(REPLAY, Webhook.objects.failed(), anna, REASON)

    about = OperatorActionItem.objects.filter(action=action).order_by("id").values_list("webhook", flat=True)
    assert list(about) == [webhook.pk for webhook in webhooks[:2]]


def test_action_without_webhooks_is_not_created(anna: User) -> None:
    with pytest.raises(NothingToDo):
        operator_actions.create_for_queryset(REPLAY, Webhook.objects.failed(), anna, REASON)
    with pytest.raises(NothingToDo):
        operator_actions.create(REPLAY, [], anna, REASON)
    assert not OperatorAction.objects.exists()


@requires_row_locks
def test_creating_an_action_locks_no_webhook(anna: User) -> None:
    webhook = failed()

    def change() -> int:
        make_webhook(status=Webhook.Status.FAILED)  # as a delivery is stored and a worker fails it
        return Webhook.objects.select_for_update(nowait=True).get(pk=webhook.pk).pk

    with transaction.atomic():
        operator_actions.create_for_queryset(REPLAY, Webhook.objects.failed(), anna, REASON)
        assert run_concurrently([lambda: _in_transaction(change)]) == [webhook.pk]


def _in_transaction(change: Callable[[], int]) -> int:
    with transaction.atomic():
        return change()


def test_progress_counts_current_statuses_of_replayed_webhooks(anna: User) -> None:
    webhooks = [failed() for _ in range(4)]
    action = operator_actions.create(REPLAY, [webhook.pk for webhook in webhooks], anna, REASON)
    progress = action_progress.progress(action)
    assert (progress.processed, progress.is_finished) == (0, False)

    operator_actions.run_chunk(action.pk)
    for webhook, current in zip(webhooks, ["applied", "failed", "applied", "received"], strict=True):
        Webhook.objects.filter(pk=webhook.pk).update(status=current)

    progress = action_progress.progress(action)
    assert progress.current_statuses == {"applied": 2, "failed": 1, "received": 1}
    assert not progress.is_finished
    Webhook.objects.received().update(status="applied")
    assert action_progress.progress(action).is_finished


@requires_row_locks
def test_concurrent_actions_move_each_webhook_once(anna: User) -> None:
    webhooks = [failed() for _ in range(60)]
    kinds = [REPLAY, DISMISS, REPLAY]

    results = run_concurrently([lambda kind=kind: run_action(kind, *webhooks, by=anna) for kind in kinds])

    assert sum(outcomes.get("done", 0) for outcomes in results) == 60
    assert sum(sum(outcomes.values()) for outcomes in results) == 180
    assert OperatorActionItem.objects.filter(outcome="done").values("webhook").distinct().count() == 60


@requires_row_locks
def test_locked_action_is_skipped(anna: User) -> None:
    action = operator_actions.create(DISMISS, [failed().pk], anna, REASON)

    with transaction.atomic():
        OperatorAction.objects.select_for_update().get(pk=action.pk)
        assert run_concurrently([lambda: operator_actions.run_chunk(action.pk)]) == [0]


def test_action_resumes_after_its_process_died(anna: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator_actions, "CHUNK_WEBHOOKS", 2)
    webhooks = [failed() for _ in range(5)]
    action = operator_actions.create(REPLAY, [webhook.pk for webhook in webhooks], anna, REASON)
    operator_actions.run_chunk(action.pk)

    def die(*_: Any, **__: Any) -> None:
        Webhook.objects.filter(pk=webhooks[2].pk).update(status="received")
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(operator_actions, "_move", die)
        with pytest.raises(ZeroDivisionError):  # in the middle of the second chunk
            operator_actions.run_chunk(action.pk)
    assert [status(webhook) for webhook in webhooks] == ["received"] * 2 + ["failed"] * 3
    Webhook.objects.filter(pk=webhooks[0].pk).update(status="failed")  # failed again meanwhile

    assert operator_actions.pending_ids() == [action.pk]
    assert operator_actions.run_pending(60) is False

    assert [status(webhook) for webhook in webhooks] == ["failed"] + ["received"] * 4
    assert operator_actions.pending_ids() == []


def test_large_action_is_left_to_the_next_sweep_when_time_is_up(
    anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator_actions, "CHUNK_WEBHOOKS", 1)
    webhooks = [failed() for _ in range(3)]
    operator_actions.create(REPLAY, [webhook.pk for webhook in webhooks], anna, REASON)

    assert operator_actions.run_pending(-1) is True
    assert sorted(status(webhook) for webhook in webhooks) == ["failed", "failed", "received"]
    assert operator_actions.run_pending(60) is False
    assert [status(webhook) for webhook in webhooks] == ["received"] * 3


def test_task_whose_time_is_up_rings_for_the_rest(
    anna: User, sent: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator_actions, "CHUNK_WEBHOOKS", 1)
    monkeypatch.setattr(tasks, "SECONDS_MAX", -1)
    operator_actions.create(DISMISS, [failed().pk, failed().pk], anna, REASON)

    rings = []
    for _ in range(3):
        tasks.run_operator_actions()
        rings += [name for name, _, _ in sent()]

    assert rings == [doorbell.OPERATOR_ACTIONS_TASK] * 2  # the third run finds nothing
    assert operator_actions.pending_ids() == []


def test_sweeper_rings_for_pending_action(anna: User, sent: Callable[[], list[Any]]) -> None:
    operator_actions.create(DISMISS, [failed().pk], anna, REASON)

    sweeper.sweep()

    assert [name for name, _, _ in sent()] == [doorbell.OPERATOR_ACTIONS_TASK]
    assert tasks.run_operator_actions.name == doorbell.OPERATOR_ACTIONS_TASK


def test_action_rings_are_limited_apart_from_inbox_rings(
    sent: Callable[[], list[Any]],
) -> None:
    for task in [doorbell.APPLY_TASK] * 30 + [doorbell.OPERATOR_ACTIONS_TASK] * 30:
        assert doorbell.ring_now(task)

    assert Counter(name for name, _, _ in sent()) == {
        doorbell.APPLY_TASK: doorbell.QUEUED_RINGS_MAX,
        doorbell.OPERATOR_ACTIONS_TASK: doorbell.QUEUED_RINGS_MAX,
    }


@requires_row_locks
def test_action_on_locked_webhook_does_not_delay_others(anna: User) -> None:
    locked, other = failed(), failed()
    for webhook in (locked, other):
        operator_actions.create(DISMISS, [webhook.pk], anna, REASON)

    with transaction.atomic():
        Webhook.objects.select_for_update().get(pk=locked.pk)
        assert run_concurrently([lambda: operator_actions.run_pending(0)]) == [True]

    assert (status(locked), status(other)) == ("failed", "dismissed")


def test_failing_action_does_not_delay_others(anna: User, monkeypatch: pytest.MonkeyPatch) -> None:
    webhooks = [failed(), failed()]
    broken, _ = (operator_actions.create(DISMISS, [webhook.pk], anna, REASON) for webhook in webhooks)
    run_chunk = operator_actions.run_chunk

    def run_unless_broken(action_id: int) -> int:
        if action_id == broken.pk:
            raise ZeroDivisionError
        return run_chunk(action_id)

    monkeypatch.setattr(operator_actions, "run_chunk", run_unless_broken)
    assert operator_actions.run_pending(60) is False

    assert list(map(status, webhooks)) == ["failed", "dismissed"]
    assert operator_actions.pending_ids() == [broken.pk]


def test_sweeper_runs_actions_without_a_broker(anna: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorbell, "ring_now", lambda *_: False)
    webhook = failed()
    operator_actions.create(REPLAY, [webhook.pk], anna, REASON)

    sweeper.sweep()

    assert status(webhook) == "applied"


# --- the audit trail ----------------------------------------------------------------------------------


def execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


FORBIDDEN: dict[str, Callable[[], object]] = {
    "another reason": lambda: OperatorAction.objects.update(reason="another"),
    "another name": lambda: execute("UPDATE ingest_operatoraction SET by_name = 'boris'"),
    "no action": lambda: raw_delete(OperatorAction.objects.all()),
    "no webhook": lambda: raw_delete(OperatorActionItem.objects.all()),
    "another outcome": lambda: OperatorActionItem.objects.update(outcome="applied"),
    "pending again": lambda: OperatorActionItem.objects.update(outcome=""),
    "another webhook": lambda: execute("UPDATE ingest_operatoractionitem SET webhook_id = webhook_id + 1"),
    "replaced": lambda: execute("REPLACE INTO ingest_operatoraction SELECT * FROM ingest_operatoraction"),
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_database_rejects_changes_of_the_audit_trail(anna: User, name: str) -> None:
    run_action(DISMISS, failed(), by=anna)
    before = [*OperatorAction.objects.values(), *OperatorActionItem.objects.values()]

    with connection.constraint_checks_disabled(), pytest.raises(DatabaseError, match="append-only"):
        FORBIDDEN[name]()

    assert [*OperatorAction.objects.values(), *OperatorActionItem.objects.values()] == before


def test_database_rejects_another_webhook_in_a_pending_item(anna: User) -> None:
    operator_actions.create(DISMISS, [failed().pk], anna, REASON)

    with pytest.raises(DatabaseError, match="append-only"):
        OperatorActionItem.objects.update(outcome="done", webhook_id=10**6)


def test_triggers_of_pending_migration_are_not_expected() -> None:
    assert set(triggers.expected_tables({("ledger", "0001_initial")})) == set(triggers.LEDGER_TABLES)


# --- permissions --------------------------------------------------------------------------------------


def test_operators_can_act_and_auditors_can_view() -> None:
    Permission.objects.filter(codename="dismiss_webhook").delete()  # as in an empty database
    create_groups = import_module("ingest.migrations.0001_initial").create_groups
    for _ in range(2):
        create_groups(apps, None)

    may = {
        group.name: set(group.permissions.values_list("codename", flat=True)) for group in Group.objects.all()
    }
    assert may["Operators"] - may["Auditors"] == {
        "replay_webhook",
        "dismiss_webhook",
        "resolve_conflict",
        "correct_payment",
        "decide_duplicate",
        "process_unrecognized",
        "dismiss_unrecognized",
        *("add_ownaccount", "change_ownaccount", "add_bankstatement", "accept_statement", "settle_line"),
    }
    assert {"view_operatoraction", "view_webhook", "view_taskresult", "view_balancelog"} <= may["Auditors"]
    assert all(codename.startswith("view_") for codename in may["Auditors"])
