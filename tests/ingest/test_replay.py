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
from tests.factories import ROMASHKA, balances, make_webhook, terms
from worker import applying

pytestmark = pytest.mark.django_db
FAILED, RECEIVED = Webhook.Status.FAILED, Webhook.Status.RECEIVED
WHY = "the bug is repaired"
APPLIED, DISMISSED = Webhook.Status.APPLIED, Webhook.Status.DISMISSED


def failed(amount_kopecks: int = 100_00) -> Webhook:
    return make_webhook(terms(amount_kopecks), status=FAILED, attempts=5, last_error="it broke")


@pytest.fixture
def anna() -> User:
    return User.objects.create_superuser("anna")


@pytest.fixture
def rings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows with each ring; the bell itself is silent, as no broker is meant here."""
    heard: list[str] = []
    monkeypatch.setattr(doorbell, "ring", lambda: heard.append("ring"))
    return heard


def test_a_failed_webhook_is_received_again_with_all_its_attempts(anna: User) -> None:
    webhook = failed()

    assert replay([webhook.pk], by=anna, reason=WHY) == ReplayResult(1)

    assert Webhook.objects.queued().get() == webhook
    webhook.refresh_from_db()
    assert (webhook.attempts, webhook.next_attempt_at, webhook.last_error) == (0, None, "it broke")


@pytest.mark.django_db(transaction=True)
def test_a_replayed_webhook_is_applied_like_any_other(anna: User, rings: list[str]) -> None:
    webhook = failed(145_000_00)

    replay([webhook.pk], by=anna, reason=WHY)
    assert rings == ["ring"]
    applying.apply_batch(10)

    webhook.refresh_from_db()
    assert (webhook.status, webhook.last_error) == (APPLIED, "")
    assert balances() == {ROMASHKA: 145_000_00}


@pytest.mark.django_db(transaction=True)
def test_replaying_an_applied_webhook_changes_nothing_and_says_so(anna: User, rings: list[str]) -> None:
    webhook = make_webhook(terms(100_00))
    applying.apply_batch(10)

    said = str(replay([webhook.pk], by=anna, reason=WHY))

    assert said == "0 replayed, 1 applied already (nothing to do)"
    assert applying.apply_batch(10) == 0
    assert balances() == {ROMASHKA: 100_00}
    assert rings == []
    assert [each.outcome for each in OperatorActionItem.objects.all()] == ["applied"]


@pytest.mark.parametrize("status", [APPLIED, RECEIVED, DISMISSED])
def test_only_failed_webhooks_move(anna: User, status: Webhook.Status) -> None:
    other, broken = make_webhook(status=status, attempts=3), failed()

    done = replay([other.pk, broken.pk], by=anna, reason=WHY)

    assert done == ReplayResult(1, count_by_status([other.pk]))
    other.refresh_from_db()
    assert (other.status, other.attempts) == (status, 3)


def test_what_became_of_each_is_told(anna: User) -> None:
    webhooks = [
        failed(),
        failed(),
        make_webhook(),
        make_webhook(status=APPLIED),
        make_webhook(status=DISMISSED),
    ]

    said = str(replay([*(webhook.pk for webhook in webhooks), 10**9], by=anna, reason=WHY))

    assert said == (
        "2 replayed, 1 applied already (nothing to do), 1 waiting to be applied anyway, "
        "1 dismissed (not replayed), 1 unknown"
    )


def test_an_id_given_twice_counts_once(anna: User) -> None:
    webhook = failed()

    assert replay([webhook.pk, webhook.pk], by=anna, reason=WHY) == ReplayResult(1)


def test_who_replayed_what_and_why_stays_in_the_audit_trail(anna: User) -> None:
    webhooks = [failed(), failed()]
    untouched = make_webhook(status=APPLIED)

    replay([webhook.pk for webhook in [*webhooks, untouched]], by=anna, reason=WHY)

    action = OperatorAction.objects.get()
    assert (action.kind, action.by, action.by_name, action.reason) == ("replay", anna, "anna", WHY)
    outcomes = dict(action.webhooks.values_list("webhook_id", "outcome"))
    assert outcomes == {
        **dict.fromkeys((webhook.pk for webhook in webhooks), "done"),
        untouched.pk: "applied",
    }


@pytest.mark.django_db(transaction=True)
def test_without_a_name_in_the_audit_trail_nothing_moves(rings: list[str]) -> None:
    webhook = failed()

    with pytest.raises(IntegrityError):
        replay([webhook.pk], by=User(pk=404, username="nobody"), reason=WHY)

    webhook.refresh_from_db()
    assert (webhook.status, rings) == (FAILED, [])


def test_large_sets_move_in_chunks_and_each_rings(
    anna: User,
    monkeypatch: pytest.MonkeyPatch,
    rings: list[str],
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    monkeypatch.setattr(operator_actions, "CHUNK_WEBHOOKS", 2)
    webhooks = [failed() for _ in range(5)]
    watched: list[int] = []

    with django_capture_on_commit_callbacks(execute=True):
        done = replay([webhook.pk for webhook in webhooks], by=anna, reason=WHY, watch=watched.append)

    assert (done.replayed, watched, len(rings)) == (5, [2, 2, 1], 3)


def replay_concurrently(action: Callable[[], ReplayResult], times: int) -> list[ReplayResult]:
    """Run `act` in that many threads that start together."""
    starting = threading.Barrier(times)

    def wait_and_act(_: int) -> ReplayResult:
        try:
            connections["default"].ensure_connection()
            starting.wait()
            return action()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(times) as threads:
        return list(threads.map(wait_and_act, range(times)))


@pytest.mark.django_db(transaction=True)
def test_of_two_replays_at_once_each_webhook_sees_exactly_one_win(anna: User, rings: list[str]) -> None:
    webhook_ids = [failed().pk for _ in range(100)]

    told = replay_concurrently(lambda: replay(webhook_ids, by=anna, reason=WHY), times=2)

    assert sum(done.replayed for done in told) == 100
    assert sum(done.left_alone[RECEIVED] for done in told) == 100  # the other is told, each time
    done = OperatorActionItem.objects.filter(outcome="done").values_list("webhook_id", flat=True)
    assert sorted(done) == webhook_ids


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif("sqlite" in settings.DATABASES["default"]["ENGINE"], reason="it has no row locks")
def test_replays_of_overlapping_sets_do_not_deadlock(anna: User, rings: list[str]) -> None:
    """A few failed webhooks among many, where the server finds some sets by status and others by id."""
    told = [terms() for _ in range(3000)]
    Webhook.objects.bulk_create(
        Webhook(
            operation_id=one.operation_id,
            payer_inn=one.inn,
            amount_kopecks=one.amount_kopecks,
            document_number=one.document_number,
            document_date=one.document_date,
            body=b"",
            status=APPLIED,
        )
        for one in told
    )
    applied = list(Webhook.objects.values_list("id", flat=True))
    broken = Webhook.objects.filter(id__in=applied[::250])
    ids = list(broken.values_list("id", flat=True))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE TABLE ingest_webhook")

    for _ in range(40):
        broken.update(status=FAILED)
        sets = [ids[::5], ids, ids[::-1] + applied[:450], ids[::4] + applied[:450]]
        told_each = replay_concurrently(
            lambda sets=sets: replay(sets.pop(), by=anna, reason=WHY), times=len(sets)
        )
        assert sum(done.replayed for done in told_each) == len(ids)
