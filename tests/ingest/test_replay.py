import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.db import IntegrityError, connection, connections
from pytest_django import DjangoCaptureOnCommitCallbacks

from ingest import doorbell, operator_actions
from ingest.models import OperatorAction, OperatorActionItem, Webhook
from ingest.replay import ReplayResult, count_by_status, replay
from tests.factories import ROMASHKA, balances, make_webhook, terms, unsaved_webhook
from worker import applying

pytestmark = pytest.mark.django_db
FAILED, RECEIVED = Webhook.Status.FAILED, Webhook.Status.RECEIVED
REASON = "the bug is repaired"
APPLIED, DISMISSED = Webhook.Status.APPLIED, Webhook.Status.DISMISSED


def failed(amount_kopecks: int = 100_00) -> Webhook:
    return make_webhook(terms(amount_kopecks), status=FAILED, attempts=5, last_error="it broke")


@pytest.fixture
def anna() -> User:
    return User.objects.create_superuser("anna")


@pytest.fixture
def rings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect the rings of the doorbell instead of sending them."""
    rings: list[str] = []
    monkeypatch.setattr(doorbell, "ring", lambda: rings.append("ring"))
    return rings


def test_replayed_webhook_is_queued_with_all_attempts(anna: User) -> None:
    webhook = failed()

    assert replay([webhook.pk], by=anna, reason=REASON) == ReplayResult(1)

    assert Webhook.objects.queued().get() == webhook
    webhook.refresh_from_db()
    assert (webhook.attempts, webhook.next_attempt_at, webhook.last_error) == (0, None, "it broke")


@pytest.mark.django_db(transaction=True)
def test_replayed_webhook_is_applied(anna: User, rings: list[str]) -> None:
    webhook = failed(145_000_00)

    replay([webhook.pk], by=anna, reason=REASON)
    assert rings == ["ring"]
    applying.apply_batch(10)

    webhook.refresh_from_db()
    assert (webhook.status, webhook.last_error) == (APPLIED, "")
    assert balances() == {ROMASHKA: 145_000_00}


@pytest.mark.django_db(transaction=True)
def test_applied_webhook_is_skipped(anna: User, rings: list[str]) -> None:
    webhook = make_webhook(terms(100_00))
    applying.apply_batch(10)

    text = str(replay([webhook.pk], by=anna, reason=REASON))

    assert text == "0 replayed, 1 already applied"
    assert applying.apply_batch(10) == 0
    assert balances() == {ROMASHKA: 100_00}
    assert rings == []
    assert [each.outcome for each in OperatorActionItem.objects.all()] == ["applied"]


@pytest.mark.parametrize("status", [APPLIED, RECEIVED, DISMISSED])
def test_only_failed_webhooks_are_replayed(anna: User, status: Webhook.Status) -> None:
    other, broken = make_webhook(status=status, attempts=3), failed()

    done = replay([other.pk, broken.pk], by=anna, reason=REASON)

    assert done == ReplayResult(1, count_by_status([other.pk]))
    other.refresh_from_db()
    assert (other.status, other.attempts) == (status, 3)


def test_result_counts_skipped_webhooks_by_status(anna: User) -> None:
    webhooks = [
        failed(),
        failed(),
        make_webhook(),
        make_webhook(status=APPLIED),
        make_webhook(status=DISMISSED),
    ]

    text = str(replay([*(webhook.pk for webhook in webhooks), 10**9], by=anna, reason=REASON))

    assert text == ("2 replayed, 1 already applied, 1 already queued, 1 already dismissed, 1 unknown")


def test_repeated_key_counts_once(anna: User) -> None:
    webhook = failed()

    assert replay([webhook.pk, webhook.pk], by=anna, reason=REASON) == ReplayResult(1)


def test_audit_trail_records_user_reason_and_outcomes(anna: User) -> None:
    webhooks = [failed(), failed()]
    untouched = make_webhook(status=APPLIED)

    replay([webhook.pk for webhook in [*webhooks, untouched]], by=anna, reason=REASON)

    action = OperatorAction.objects.get()
    assert (action.kind, action.by, action.by_name, action.reason) == ("replay", anna, "anna", REASON)
    outcomes = dict(action.webhooks.values_list("webhook_id", "outcome"))
    assert outcomes == {
        **dict.fromkeys((webhook.pk for webhook in webhooks), "done"),
        untouched.pk: "applied",
    }


@pytest.mark.django_db(transaction=True)
def test_unknown_user_replays_nothing(rings: list[str]) -> None:
    webhook = failed()

    with pytest.raises(IntegrityError):
        replay([webhook.pk], by=User(pk=404, username="unknown"), reason=REASON)

    webhook.refresh_from_db()
    assert (webhook.status, rings) == (FAILED, [])


def test_large_set_is_replayed_in_chunks_that_each_ring(
    anna: User,
    monkeypatch: pytest.MonkeyPatch,
    rings: list[str],
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    monkeypatch.setattr(operator_actions, "CHUNK_WEBHOOKS", 2)
    webhooks = [failed() for _ in range(5)]
    progress: list[int] = []

    with django_capture_on_commit_callbacks(execute=True):
        done = replay(
            [webhook.pk for webhook in webhooks], by=anna, reason=REASON, on_progress=progress.append
        )

    assert (done.replayed, progress, len(rings)) == (5, [2, 2, 1], 3)


def replay_concurrently(action: Callable[[], ReplayResult], times: int) -> list[ReplayResult]:
    """Run `action` in that many threads that start together."""
    starting = threading.Barrier(times)

    def wait_and_run(_: int) -> ReplayResult:
        try:
            connections["default"].ensure_connection()
            starting.wait()
            return action()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(times) as threads:
        return list(threads.map(wait_and_run, range(times)))


@pytest.mark.django_db(transaction=True)
def test_concurrent_replays_move_each_webhook_once(anna: User, rings: list[str]) -> None:
    webhook_ids = [failed().pk for _ in range(100)]

    results = replay_concurrently(lambda: replay(webhook_ids, by=anna, reason=REASON), times=2)

    assert sum(done.replayed for done in results) == 100
    assert sum(done.skipped[RECEIVED] for done in results) == 100  # the other replay skips it
    done = OperatorActionItem.objects.filter(outcome="done").values_list("webhook_id", flat=True)
    assert sorted(done) == webhook_ids


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif("sqlite" in settings.DATABASES["default"]["ENGINE"], reason="it has no row locks")
@pytest.mark.parametrize("rounds", [6, pytest.param(40, marks=pytest.mark.long)])
def test_concurrent_overlapping_replays_do_not_deadlock(rounds: int, anna: User, rings: list[str]) -> None:
    """Replay a few failed webhooks among many: the server finds some sets by status, others by id."""
    Webhook.objects.bulk_create(unsaved_webhook(body=b"", status=APPLIED) for _ in range(3000))
    applied = list(Webhook.objects.values_list("id", flat=True))
    broken = Webhook.objects.filter(id__in=applied[::250])
    ids = list(broken.values_list("id", flat=True))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE TABLE ingest_webhook")

    for _ in range(rounds):
        broken.update(status=FAILED)
        sets = [ids[::5], ids, ids[::-1] + applied[:450], ids[::4] + applied[:450]]
        results = replay_concurrently(
            lambda sets=sets: replay(sets.pop(), by=anna, reason=REASON), times=len(sets)
        )
        assert sum(done.replayed for done in results) == len(ids)
