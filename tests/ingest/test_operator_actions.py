from collections import Counter
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, Permission, User
from django.db import DatabaseError, connection, transaction

from ingest import doorbell, inbox, operator_actions
from ingest.error_fingerprint import fingerprint
from ingest.exceptions import NothingToDo, StaleConfirmation
from ingest.models import (
    ERROR_FINGERPRINT_CHARS_MAX,
    ConflictingDelivery,
    OperatorAction,
    OperatorActionItem,
    Webhook,
)
from ledger import triggers
from tests.concurrency import requires_row_locks, run_concurrently
from tests.corruption import raw_delete
from tests.factories import balances, make_webhook, terms
from worker import acting, retries, sweeper, tasks

pytestmark = pytest.mark.django_db(transaction=True)
REPLAY, DISMISS, RESOLVE = (
    OperatorAction.Kind.REPLAY,
    OperatorAction.Kind.DISMISS,
    OperatorAction.Kind.RESOLVE,
)
WHY = "the bug is repaired"


@pytest.fixture
def anna() -> User:
    return User.objects.create_superuser("anna")


@pytest.fixture(autouse=True)
def silent_bell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorbell, "ring", lambda: None)


def failed() -> Webhook:
    return make_webhook(status=Webhook.Status.FAILED, attempts=5, last_error="it broke")


def status(webhook: Webhook) -> str:
    return Webhook.objects.get(pk=webhook.pk).status


def done(kind: OperatorAction.Kind, *webhooks: Webhook, by: User) -> dict[str, int]:
    """Begin an act and carry it out; how many webhooks had which outcome."""
    action = operator_actions.create(kind, [webhook.pk for webhook in webhooks], by, WHY)
    while operator_actions.run_chunk(action.pk, wait=True):
        pass
    return dict(operator_actions.progress(action).outcomes)


def conflict_with(webhook: Webhook) -> ConflictingDelivery:
    return ConflictingDelivery.objects.create(webhook=webhook, difference="amount_kopecks", body=b"{}")


def test_a_dismissed_webhook_is_dismissed_for_good(anna: User) -> None:
    webhook, applied = failed(), make_webhook(status="applied")

    assert done(DISMISS, webhook, applied, by=anna) == {"done": 1, "applied": 1}
    assert done(REPLAY, webhook, by=anna) == {"dismissed": 1}

    assert (status(webhook), status(applied)) == ("dismissed", "applied")


def test_a_resolved_conflict_is_open_no_more_and_a_later_one_is(anna: User) -> None:
    webhook, without = make_webhook(), make_webhook()
    conflict_with(webhook), conflict_with(webhook)

    assert done(RESOLVE, webhook, without, by=anna) == {"done": 1, "resolved": 1}

    later = conflict_with(webhook)
    assert list(ConflictingDelivery.objects.filter(resolved_by=None)) == [later]
    assert balances() == {}
    assert status(webhook) == "received"


def test_a_conflict_that_arrives_after_a_resolution_is_begun_stays_open(
    anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator_actions, "CHUNK_WEBHOOKS", 1)
    webhooks = [make_webhook(), make_webhook()]
    confirmed = [conflict_with(webhook) for webhook in webhooks]
    action = operator_actions.create(RESOLVE, [webhook.pk for webhook in webhooks], anna, WHY)
    operator_actions.run_chunk(action.pk)

    later = [conflict_with(webhook) for webhook in webhooks]
    while operator_actions.run_chunk(action.pk):
        pass

    assert operator_actions.progress(action).outcomes == {"done": 2}
    assert list(ConflictingDelivery.objects.filter(resolved_by=None)) == later
    assert list(ConflictingDelivery.objects.filter(resolved_by=action)) == confirmed


@requires_row_locks
def test_of_two_resolutions_at_once_each_conflict_has_one_and_none_deadlocks(anna: User) -> None:
    webhooks = [make_webhook() for _ in range(20)]
    for webhook in webhooks * 3:
        conflict_with(webhook)

    told = run_concurrently([lambda: done(RESOLVE, *webhooks, by=anna)] * 4)

    assert sum(outcomes.get("done", 0) for outcomes in told) == 20
    assert not ConflictingDelivery.objects.filter(resolved_by=None).exists()


@requires_row_locks
def test_a_flood_of_deliveries_and_resolutions_at_once_do_not_deadlock(anna: User, settings: Any) -> None:
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
        return sum(done(RESOLVE, *webhooks, by=anna).get("done", 0) for _ in range(10))

    run_concurrently([lambda: flood(1), lambda: flood(2), resolve, resolve])
    resolve()

    assert ConflictingDelivery.objects.count() == 80
    assert not ConflictingDelivery.objects.filter(resolved_by=None).exists()
    assert webhooks[0].duplicate_deliveries.model.objects.count() == 3


def test_a_dismissal_spares_a_webhook_that_was_replayed_and_failed_again_before_its_chunk(anna: User) -> None:
    webhook, other = failed(), failed()
    dismissal = operator_actions.create(DISMISS, [webhook.pk, other.pk], anna, WHY)
    done(REPLAY, webhook, by=anna)
    Webhook.objects.filter(pk=webhook.pk).update(status="failed")  # of another cause

    operator_actions.run_chunk(dismissal.pk)

    assert operator_actions.progress(dismissal).outcomes == {"failed": 1, "done": 1}
    assert (status(webhook), status(other)) == ("failed", "dismissed")


def test_an_act_about_other_webhooks_than_were_shown_is_not_begun(anna: User) -> None:
    webhooks = [failed(), failed()]
    shown = operator_actions.state_digest(DISMISS, Webhook.objects.failed())
    failed()

    with pytest.raises(StaleConfirmation):
        operator_actions.create_for_queryset(DISMISS, Webhook.objects.all(), anna, WHY, shown)
    assert not OperatorAction.objects.exists()
    assert not OperatorActionItem.objects.exists()

    action = operator_actions.create(DISMISS, [webhook.pk for webhook in webhooks], anna, WHY, shown=shown)
    operator_actions.run_chunk(action.pk)
    assert operator_actions.progress(action).outcomes == {"done": 2}


@pytest.mark.parametrize("reason", ["", "  \n"])
def test_nothing_is_done_without_a_reason(anna: User, reason: str) -> None:
    with pytest.raises(ValueError, match="reason"):
        operator_actions.create(REPLAY, [failed().pk], anna, reason)
    assert not OperatorAction.objects.exists()


def test_an_act_on_all_is_about_those_that_match_at_that_moment(anna: User) -> None:
    webhooks = [failed() for _ in range(3)]
    make_webhook(status="applied")

    action = operator_actions.create_for_queryset(
        DISMISS, Webhook.objects.failed().order_by("-id"), anna, f" {WHY} "
    )
    failed()

    rows = OperatorActionItem.objects.order_by("id").values_list("action", "webhook", "outcome")
    assert list(rows) == [(action.pk, webhook.pk, "") for webhook in webhooks]
    assert (action.by, action.by_name, action.reason) == (anna, "anna", WHY)


def test_an_act_on_all_takes_so_many_at_most(anna: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator_actions, "WEBHOOKS_MAX", 2)
    webhooks = [failed() for _ in range(3)]

    action = operator_actions.create_for_queryset(REPLAY, Webhook.objects.failed(), anna, WHY)

    about = OperatorActionItem.objects.filter(action=action).order_by("id").values_list("webhook", flat=True)
    assert list(about) == [webhook.pk for webhook in webhooks[:2]]


def test_an_act_about_nothing_is_none(anna: User) -> None:
    with pytest.raises(NothingToDo):
        operator_actions.create_for_queryset(REPLAY, Webhook.objects.failed(), anna, WHY)
    with pytest.raises(NothingToDo):
        operator_actions.create(REPLAY, [], anna, WHY)
    assert not OperatorAction.objects.exists()


@requires_row_locks
def test_while_an_act_on_all_is_written_down_nobody_waits_for_it(anna: User) -> None:
    webhook = failed()

    def change() -> int:
        make_webhook(status=Webhook.Status.FAILED)  # as the door stores, and a worker gives up
        return Webhook.objects.select_for_update(nowait=True).get(pk=webhook.pk).pk

    with transaction.atomic():
        operator_actions.create_for_queryset(REPLAY, Webhook.objects.failed(), anna, WHY)
        assert run_concurrently([lambda: _in_a_transaction(change)]) == [webhook.pk]


def _in_a_transaction(action: Callable[[], int]) -> int:
    with transaction.atomic():
        return action()


def test_a_replay_tells_what_its_webhooks_are_by_now(anna: User) -> None:
    webhooks = [failed() for _ in range(4)]
    action = operator_actions.create(REPLAY, [webhook.pk for webhook in webhooks], anna, WHY)
    assert (operator_actions.progress(action).reached, operator_actions.progress(action).is_over) == (
        0,
        False,
    )

    operator_actions.run_chunk(action.pk)
    for webhook, its in zip(webhooks, ["applied", "failed", "applied", "received"], strict=True):
        Webhook.objects.filter(pk=webhook.pk).update(status=its)

    told = operator_actions.progress(action)
    assert (told.by_now, told.is_over) == ({"applied": 2, "failed": 1, "received": 1}, False)
    Webhook.objects.received().update(status="applied")
    assert operator_actions.progress(action).is_over


@requires_row_locks
def test_of_a_replay_and_a_dismissal_at_once_one_wins_and_the_other_is_told(anna: User) -> None:
    webhooks = [failed() for _ in range(60)]
    kinds = [REPLAY, DISMISS, REPLAY]

    told = run_concurrently([lambda kind=kind: done(kind, *webhooks, by=anna) for kind in kinds])

    assert sum(outcomes.get("done", 0) for outcomes in told) == 60
    assert sum(sum(outcomes.values()) for outcomes in told) == 180
    assert OperatorActionItem.objects.filter(outcome="done").values("webhook").distinct().count() == 60


@requires_row_locks
def test_somebody_at_an_act_is_left_at_it(anna: User) -> None:
    action = operator_actions.create(DISMISS, [failed().pk], anna, WHY)

    with transaction.atomic():
        OperatorAction.objects.select_for_update().get(pk=action.pk)
        assert run_concurrently([lambda: operator_actions.run_chunk(action.pk)]) == [0]


def test_an_act_whose_process_died_is_carried_on_where_it_was(
    anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator_actions, "CHUNK_WEBHOOKS", 2)
    webhooks = [failed() for _ in range(5)]
    action = operator_actions.create(REPLAY, [webhook.pk for webhook in webhooks], anna, WHY)
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
    assert acting.run_pending(60) is False

    assert [status(webhook) for webhook in webhooks] == ["failed"] + ["received"] * 4
    assert operator_actions.pending_ids() == []


def test_the_sweeper_rings_for_an_act_that_nobody_is_at(anna: User, sent: Callable[[], list[Any]]) -> None:
    operator_actions.create(DISMISS, [failed().pk], anna, WHY)

    sweeper.sweep()

    assert [name for name, _, _ in sent()] == [doorbell.OPERATOR_ACTIONS_TASK]
    assert tasks.run_operator_actions.name == doorbell.OPERATOR_ACTIONS_TASK


def test_a_ring_for_acts_is_sent_though_enough_rings_for_the_inbox_wait(
    sent: Callable[[], list[Any]],
) -> None:
    for task in [doorbell.APPLY_TASK] * 30 + [doorbell.OPERATOR_ACTIONS_TASK] * 30:
        assert doorbell.ring_now(task)

    assert Counter(name for name, _, _ in sent()) == {
        doorbell.APPLY_TASK: doorbell.QUEUED_RINGS_MAX,
        doorbell.OPERATOR_ACTIONS_TASK: doorbell.QUEUED_RINGS_MAX,
    }


@requires_row_locks
def test_an_act_that_waits_for_a_locked_webhook_holds_up_no_other(anna: User) -> None:
    locked, other = failed(), failed()
    for webhook in (locked, other):
        operator_actions.create(DISMISS, [webhook.pk], anna, WHY)

    with transaction.atomic():
        Webhook.objects.select_for_update().get(pk=locked.pk)
        assert run_concurrently([lambda: acting.run_pending(0)]) == [True]

    assert (status(locked), status(other)) == ("failed", "dismissed")


def test_an_act_that_fails_holds_up_no_other(anna: User, monkeypatch: pytest.MonkeyPatch) -> None:
    webhooks = [failed(), failed()]
    broken, _ = (operator_actions.create(DISMISS, [webhook.pk], anna, WHY) for webhook in webhooks)
    carry_out = operator_actions.run_chunk

    def carry_out_unless_broken(action_id: int) -> int:
        if action_id == broken.pk:
            raise ZeroDivisionError
        return carry_out(action_id)

    monkeypatch.setattr(operator_actions, "run_chunk", carry_out_unless_broken)
    assert acting.run_pending(60) is False

    assert list(map(status, webhooks)) == ["failed", "dismissed"]
    assert operator_actions.pending_ids() == [broken.pk]


def test_without_a_broker_the_sweeper_carries_acts_out_itself(
    anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorbell, "ring_now", lambda *_: False)
    webhook = failed()
    operator_actions.create(REPLAY, [webhook.pk], anna, WHY)

    sweeper.sweep()

    assert status(webhook) == "applied"


# --- the audit trail ------------------------------------------------------------------------------


def execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


FORBIDDEN: dict[str, Callable[[], object]] = {
    "another reason": lambda: OperatorAction.objects.update(reason="another"),
    "another name": lambda: execute("UPDATE ingest_operatoraction SET by_name = 'boris'"),
    "no act": lambda: raw_delete(OperatorAction.objects.all()),
    "no webhook": lambda: raw_delete(OperatorActionItem.objects.all()),
    "another outcome": lambda: OperatorActionItem.objects.update(outcome="applied"),
    "pending again": lambda: OperatorActionItem.objects.update(outcome=""),
    "another webhook": lambda: execute("UPDATE ingest_operatoractionitem SET webhook_id = webhook_id + 1"),
    "replaced": lambda: execute("REPLACE INTO ingest_operatoraction SELECT * FROM ingest_operatoraction"),
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_the_database_refuses_to_change_what_was_done(anna: User, name: str) -> None:
    done(DISMISS, failed(), by=anna)
    before = [*OperatorAction.objects.values(), *OperatorActionItem.objects.values()]

    with connection.constraint_checks_disabled(), pytest.raises(DatabaseError, match="append-only"):
        FORBIDDEN[name]()

    assert [*OperatorAction.objects.values(), *OperatorActionItem.objects.values()] == before


def test_a_pending_webhook_can_not_be_exchanged(anna: User) -> None:
    operator_actions.create(DISMISS, [failed().pk], anna, WHY)

    with pytest.raises(DatabaseError, match="append-only"):
        OperatorActionItem.objects.update(outcome="done", webhook_id=10**6)


def test_triggers_of_a_migration_that_has_still_to_run_are_not_missed() -> None:
    assert set(triggers.expected_tables({("ledger", "0001_initial")})) == set(triggers.LEDGER_TABLES)


# --- who may, and kinds of errors -----------------------------------------------------------------


def test_operators_act_and_auditors_look() -> None:
    Permission.objects.filter(codename="dismiss_webhook").delete()  # as in an empty database
    create_groups = import_module("ingest.migrations.0001_initial").create_groups
    for _ in range(2):
        create_groups(apps, None)

    may = {
        group.name: set(group.permissions.values_list("codename", flat=True)) for group in Group.objects.all()
    }
    assert may["Operators"] - may["Auditors"] == {"replay_webhook", "dismiss_webhook", "resolve_conflict"}
    assert {"view_operatoraction", "view_webhook", "view_taskresult", "view_balancelog"} <= may["Auditors"]
    assert all(codename.startswith("view_") for codename in may["Auditors"])


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("ValueError('PAY-328 of 1234567890 is odd')", "ValueError('# of # is odd')"),
        (
            "IntegrityError(1062, \"Duplicate entry 'ccf0a86d-041b-4991-bcf7-e2352f7b8a4a' for key 'x'\")",
            "IntegrityError(1062, \"Duplicate entry '#' for key 'x'\")",
        ),
        ("RuntimeError('it  broke\\n')", "RuntimeError('it broke\\n')"),
        ("", ""),
    ],
)
def test_errors_of_one_cause_are_of_one_kind(error: str, kind: str) -> None:
    assert fingerprint(error) == kind


def test_a_kind_fits_its_column() -> None:
    assert len(fingerprint("é" * 1000)) == ERROR_FINGERPRINT_CHARS_MAX


def test_a_webhook_that_fails_has_a_kind(settings: Any) -> None:
    settings.ATTEMPTS_MAX = 1
    webhook = make_webhook(attempts=1)

    retries.record_failure(webhook.pk, 1, "ValueError('number 17')")

    webhook.refresh_from_db()
    assert (webhook.status, webhook.error_fingerprint) == ("failed", "ValueError('number #')")
