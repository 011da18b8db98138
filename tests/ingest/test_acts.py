from collections import Counter
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, Permission, User
from django.db import DatabaseError, connection, transaction

from ingest import acts, doorbell, inbox
from ingest.error_kind import kind_of
from ingest.exceptions import ChangedMeanwhile, NoWebhooks
from ingest.models import ERROR_KIND_CHARS_MAX, Act, ActedWebhook, ConflictingDelivery, Webhook
from ledger import triggers
from tests.cast import balances, received, terms
from tests.planting import remove
from tests.threads import at_once, locks_rows
from worker import acting, attempts, sweeper, tasks

pytestmark = pytest.mark.django_db(transaction=True)
REPLAY, DISMISS, RESOLVE = Act.Kind.REPLAY, Act.Kind.DISMISS, Act.Kind.RESOLVE
WHY = "the bug is repaired"


@pytest.fixture
def anna() -> User:
    return User.objects.create_superuser("anna")


@pytest.fixture(autouse=True)
def silent_bell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorbell, "ring", lambda: None)


def failed() -> Webhook:
    return received(status=Webhook.Status.FAILED, attempts=5, last_error="it broke")


def status(webhook: Webhook) -> str:
    return Webhook.objects.get(pk=webhook.pk).status


def done(kind: Act.Kind, *webhooks: Webhook, by: User) -> dict[str, int]:
    """Begin an act and carry it out; how many webhooks had which outcome."""
    act = acts.begin(kind, [webhook.pk for webhook in webhooks], by, WHY)
    while acts.carry_out(act.pk, wait=True):
        pass
    return dict(acts.progress(act).outcomes)


def conflict_with(webhook: Webhook) -> ConflictingDelivery:
    return ConflictingDelivery.objects.create(webhook=webhook, difference="amount_kopecks", body=b"{}")


def test_a_dismissed_webhook_is_dismissed_for_good(anna: User) -> None:
    webhook, applied = failed(), received(status="applied")

    assert done(DISMISS, webhook, applied, by=anna) == {"done": 1, "applied": 1}
    assert done(REPLAY, webhook, by=anna) == {"dismissed": 1}

    assert (status(webhook), status(applied)) == ("dismissed", "applied")


def test_a_resolved_conflict_is_open_no_more_and_a_later_one_is(anna: User) -> None:
    webhook, without = received(), received()
    conflict_with(webhook), conflict_with(webhook)

    assert done(RESOLVE, webhook, without, by=anna) == {"done": 1, "resolved": 1}

    later = conflict_with(webhook)
    assert list(ConflictingDelivery.objects.filter(resolved_in=None)) == [later]
    assert balances() == {}
    assert status(webhook) == "received"


def test_a_conflict_that_arrives_after_a_resolution_is_begun_stays_open(
    anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acts, "CHUNK_WEBHOOKS", 1)
    webhooks = [received(), received()]
    confirmed = [conflict_with(webhook) for webhook in webhooks]
    act = acts.begin(RESOLVE, [webhook.pk for webhook in webhooks], anna, WHY)
    acts.carry_out(act.pk)

    later = [conflict_with(webhook) for webhook in webhooks]
    while acts.carry_out(act.pk):
        pass

    assert acts.progress(act).outcomes == {"done": 2}
    assert list(ConflictingDelivery.objects.filter(resolved_in=None)) == later
    assert list(ConflictingDelivery.objects.filter(resolved_in=act)) == confirmed


@locks_rows
def test_of_two_resolutions_at_once_each_conflict_has_one_and_none_deadlocks(anna: User) -> None:
    webhooks = [received() for _ in range(20)]
    for webhook in webhooks * 3:
        conflict_with(webhook)

    told = at_once([lambda: done(RESOLVE, *webhooks, by=anna)] * 4)

    assert sum(outcomes.get("done", 0) for outcomes in told) == 20
    assert not ConflictingDelivery.objects.filter(resolved_in=None).exists()


@locks_rows
def test_a_flood_of_deliveries_and_resolutions_at_once_do_not_deadlock(anna: User, settings: Any) -> None:
    settings.KEPT_DELIVERIES_MAX = 3
    webhooks = [received() for _ in range(5)]

    def flood(seed: int) -> int:
        for number in range(40):
            webhook = webhooks[number % 5]
            inbox.store(terms(2_00, operation_id=webhook.operation_id), b"%d %d" % (seed, number))
            inbox.store(webhook.terms, b"{}")
        return 0

    def resolve() -> int:
        return sum(done(RESOLVE, *webhooks, by=anna).get("done", 0) for _ in range(10))

    at_once([lambda: flood(1), lambda: flood(2), resolve, resolve])
    resolve()

    assert ConflictingDelivery.objects.count() == 80
    assert not ConflictingDelivery.objects.filter(resolved_in=None).exists()
    assert webhooks[0].repeated_deliveries.model.objects.count() == 3


def test_a_dismissal_spares_a_webhook_that_was_replayed_and_failed_again_before_its_chunk(anna: User) -> None:
    webhook, other = failed(), failed()
    dismissal = acts.begin(DISMISS, [webhook.pk, other.pk], anna, WHY)
    done(REPLAY, webhook, by=anna)
    Webhook.objects.filter(pk=webhook.pk).update(status="failed")  # of another cause

    acts.carry_out(dismissal.pk)

    assert acts.progress(dismissal).outcomes == {"failed": 1, "done": 1}
    assert (status(webhook), status(other)) == ("failed", "dismissed")


def test_an_act_about_other_webhooks_than_were_shown_is_not_begun(anna: User) -> None:
    webhooks = [failed(), failed()]
    shown = acts.fingerprint(DISMISS, Webhook.objects.failed())
    failed()

    with pytest.raises(ChangedMeanwhile):
        acts.begin_on_all(DISMISS, Webhook.objects.all(), anna, WHY, shown)
    assert not Act.objects.exists()
    assert not ActedWebhook.objects.exists()

    act = acts.begin(DISMISS, [webhook.pk for webhook in webhooks], anna, WHY, shown=shown)
    acts.carry_out(act.pk)
    assert acts.progress(act).outcomes == {"done": 2}


@pytest.mark.parametrize("reason", ["", "  \n"])
def test_nothing_is_done_without_a_reason(anna: User, reason: str) -> None:
    with pytest.raises(ValueError, match="reason"):
        acts.begin(REPLAY, [failed().pk], anna, reason)
    assert not Act.objects.exists()


def test_an_act_on_all_is_about_those_that_match_at_that_moment(anna: User) -> None:
    webhooks = [failed() for _ in range(3)]
    received(status="applied")

    act = acts.begin_on_all(DISMISS, Webhook.objects.failed().order_by("-id"), anna, f" {WHY} ")
    failed()

    rows = ActedWebhook.objects.order_by("id").values_list("act", "webhook", "outcome")
    assert list(rows) == [(act.pk, webhook.pk, "") for webhook in webhooks]
    assert (act.by, act.by_name, act.reason) == (anna, "anna", WHY)


def test_an_act_on_all_takes_so_many_at_most(anna: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acts, "ACTED_ON_MAX", 2)
    webhooks = [failed() for _ in range(3)]

    act = acts.begin_on_all(REPLAY, Webhook.objects.failed(), anna, WHY)

    about = ActedWebhook.objects.filter(act=act).order_by("id").values_list("webhook", flat=True)
    assert list(about) == [webhook.pk for webhook in webhooks[:2]]


def test_an_act_about_nothing_is_none(anna: User) -> None:
    with pytest.raises(NoWebhooks):
        acts.begin_on_all(REPLAY, Webhook.objects.failed(), anna, WHY)
    with pytest.raises(NoWebhooks):
        acts.begin(REPLAY, [], anna, WHY)
    assert not Act.objects.exists()


@locks_rows
def test_while_an_act_on_all_is_written_down_nobody_waits_for_it(anna: User) -> None:
    webhook = failed()

    def change() -> int:
        received(status=Webhook.Status.FAILED)  # as the door stores, and a worker gives up
        return Webhook.objects.select_for_update(nowait=True).get(pk=webhook.pk).pk

    with transaction.atomic():
        acts.begin_on_all(REPLAY, Webhook.objects.failed(), anna, WHY)
        assert at_once([lambda: _in_a_transaction(change)]) == [webhook.pk]


def _in_a_transaction(act: Callable[[], int]) -> int:
    with transaction.atomic():
        return act()


def test_a_replay_tells_what_its_webhooks_are_by_now(anna: User) -> None:
    webhooks = [failed() for _ in range(4)]
    act = acts.begin(REPLAY, [webhook.pk for webhook in webhooks], anna, WHY)
    assert (acts.progress(act).reached, acts.progress(act).is_over) == (0, False)

    acts.carry_out(act.pk)
    for webhook, its in zip(webhooks, ["applied", "failed", "applied", "received"], strict=True):
        Webhook.objects.filter(pk=webhook.pk).update(status=its)

    told = acts.progress(act)
    assert (told.by_now, told.is_over) == ({"applied": 2, "failed": 1, "received": 1}, False)
    Webhook.objects.received().update(status="applied")
    assert acts.progress(act).is_over


@locks_rows
def test_of_a_replay_and_a_dismissal_at_once_one_wins_and_the_other_is_told(anna: User) -> None:
    webhooks = [failed() for _ in range(60)]
    kinds = [REPLAY, DISMISS, REPLAY]

    told = at_once([lambda kind=kind: done(kind, *webhooks, by=anna) for kind in kinds])

    assert sum(outcomes.get("done", 0) for outcomes in told) == 60
    assert sum(sum(outcomes.values()) for outcomes in told) == 180
    assert ActedWebhook.objects.filter(outcome="done").values("webhook").distinct().count() == 60


@locks_rows
def test_somebody_at_an_act_is_left_at_it(anna: User) -> None:
    act = acts.begin(DISMISS, [failed().pk], anna, WHY)

    with transaction.atomic():
        Act.objects.select_for_update().get(pk=act.pk)
        assert at_once([lambda: acts.carry_out(act.pk)]) == [0]


def test_an_act_whose_process_died_is_carried_on_where_it_was(
    anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acts, "CHUNK_WEBHOOKS", 2)
    webhooks = [failed() for _ in range(5)]
    act = acts.begin(REPLAY, [webhook.pk for webhook in webhooks], anna, WHY)
    acts.carry_out(act.pk)

    def die(*_: Any, **__: Any) -> None:
        Webhook.objects.filter(pk=webhooks[2].pk).update(status="received")
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(acts, "_move", die)
        with pytest.raises(ZeroDivisionError):  # in the middle of the second chunk
            acts.carry_out(act.pk)
    assert [status(webhook) for webhook in webhooks] == ["received"] * 2 + ["failed"] * 3
    Webhook.objects.filter(pk=webhooks[0].pk).update(status="failed")  # failed again meanwhile

    assert acts.unfinished() == [act.pk]
    assert acting.carry_out_for(60) is False

    assert [status(webhook) for webhook in webhooks] == ["failed"] + ["received"] * 4
    assert acts.unfinished() == []


def test_the_sweeper_rings_for_an_act_that_nobody_is_at(anna: User, sent: Callable[[], list[Any]]) -> None:
    acts.begin(DISMISS, [failed().pk], anna, WHY)

    sweeper.sweep()

    assert [name for name, _, _ in sent()] == [doorbell.ACTS_TASK]
    assert tasks.carry_out_acts.name == doorbell.ACTS_TASK


def test_a_ring_for_acts_is_sent_though_enough_rings_for_the_inbox_wait(
    sent: Callable[[], list[Any]],
) -> None:
    for task in [doorbell.TASK] * 30 + [doorbell.ACTS_TASK] * 30:
        assert doorbell.ring_now(task)

    assert Counter(name for name, _, _ in sent()) == {
        doorbell.TASK: doorbell.WAITING_RINGS_MAX,
        doorbell.ACTS_TASK: doorbell.WAITING_RINGS_MAX,
    }


@locks_rows
def test_an_act_that_waits_for_a_locked_webhook_holds_up_no_other(anna: User) -> None:
    locked, other = failed(), failed()
    for webhook in (locked, other):
        acts.begin(DISMISS, [webhook.pk], anna, WHY)

    with transaction.atomic():
        Webhook.objects.select_for_update().get(pk=locked.pk)
        assert at_once([lambda: acting.carry_out_for(0)]) == [True]

    assert (status(locked), status(other)) == ("failed", "dismissed")


def test_an_act_that_fails_holds_up_no_other(anna: User, monkeypatch: pytest.MonkeyPatch) -> None:
    webhooks = [failed(), failed()]
    broken, _ = (acts.begin(DISMISS, [webhook.pk], anna, WHY) for webhook in webhooks)
    carry_out = acts.carry_out

    def carry_out_unless_broken(act_id: int) -> int:
        if act_id == broken.pk:
            raise ZeroDivisionError
        return carry_out(act_id)

    monkeypatch.setattr(acts, "carry_out", carry_out_unless_broken)
    assert acting.carry_out_for(60) is False

    assert list(map(status, webhooks)) == ["failed", "dismissed"]
    assert acts.unfinished() == [broken.pk]


def test_without_a_broker_the_sweeper_carries_acts_out_itself(
    anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorbell, "ring_now", lambda *_: False)
    webhook = failed()
    acts.begin(REPLAY, [webhook.pk], anna, WHY)

    sweeper.sweep()

    assert status(webhook) == "applied"


# --- the audit trail ------------------------------------------------------------------------------


def execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


FORBIDDEN: dict[str, Callable[[], object]] = {
    "another reason": lambda: Act.objects.update(reason="another"),
    "another name": lambda: execute("UPDATE ingest_act SET by_name = 'boris'"),
    "no act": lambda: remove(Act.objects.all()),
    "no webhook": lambda: remove(ActedWebhook.objects.all()),
    "another outcome": lambda: ActedWebhook.objects.update(outcome="applied"),
    "pending again": lambda: ActedWebhook.objects.update(outcome=""),
    "another webhook": lambda: execute("UPDATE ingest_actedwebhook SET webhook_id = webhook_id + 1"),
    "replaced": lambda: execute("REPLACE INTO ingest_act SELECT * FROM ingest_act"),
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_the_database_refuses_to_change_what_was_done(anna: User, name: str) -> None:
    done(DISMISS, failed(), by=anna)
    before = [*Act.objects.values(), *ActedWebhook.objects.values()]

    with connection.constraint_checks_disabled(), pytest.raises(DatabaseError, match="only grows"):
        FORBIDDEN[name]()

    assert [*Act.objects.values(), *ActedWebhook.objects.values()] == before


def test_a_pending_webhook_can_not_be_exchanged(anna: User) -> None:
    acts.begin(DISMISS, [failed().pk], anna, WHY)

    with pytest.raises(DatabaseError, match="only grows"):
        ActedWebhook.objects.update(outcome="done", webhook_id=10**6)


def test_triggers_of_a_migration_that_has_still_to_run_are_not_missed() -> None:
    assert set(triggers.migrated({("ledger", "0002_triggers")})) == set(triggers.LEDGER)


# --- who may, and kinds of errors -----------------------------------------------------------------


def test_operators_act_and_auditors_look() -> None:
    Permission.objects.filter(codename="dismiss_webhook").delete()  # as in an empty database
    make_groups = import_module("ingest.migrations.0006_error_kinds_and_groups").make_groups
    for _ in range(2):
        make_groups(apps, None)

    may = {
        group.name: set(group.permissions.values_list("codename", flat=True)) for group in Group.objects.all()
    }
    assert may["Operators"] - may["Auditors"] == {"replay_webhook", "dismiss_webhook", "resolve_conflict"}
    assert {"view_act", "view_webhook", "view_taskresult", "view_balancelog"} <= may["Auditors"]
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
    assert kind_of(error) == kind


def test_a_kind_fits_its_column() -> None:
    assert len(kind_of("é" * 1000)) == ERROR_KIND_CHARS_MAX


def test_a_webhook_that_fails_has_a_kind(settings: Any) -> None:
    settings.ATTEMPTS_MAX = 1
    webhook = received(attempts=1)

    attempts.note_failure(webhook.pk, 1, "ValueError('number 17')")

    webhook.refresh_from_db()
    assert (webhook.status, webhook.error_kind) == ("failed", "ValueError('number #')")
