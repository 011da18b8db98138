from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.db.models import Model
from django.utils import timezone
from django_celery_results.models import TaskResult

from ingest import inbox
from ingest.models import ConflictingDelivery, DuplicateDelivery, RejectedDelivery, Webhook
from ledger.models import BalanceLog, Payment
from tests.factories import make_webhook, payment_body
from worker import retention, tasks
from worker.applying import apply_batch

pytestmark = pytest.mark.django_db(transaction=True)
Settings = Any
LONG_AGO = timedelta(days=1000)


def aged(rows: type[Model], field: str) -> None:
    rows._default_manager.update(**{field: timezone.now() - LONG_AGO})


def conflicting(webhook: Webhook, **fields: Any) -> ConflictingDelivery:
    return ConflictingDelivery.objects.create(
        webhook=webhook, body=b"{}", difference="amount_kopecks", **fields
    )


def an_old_house() -> None:
    """Of each kind one, all of them old; of webhooks one applied, one failed, one received."""
    applied = make_webhook()
    apply_batch(10)
    make_webhook()
    inbox.store(applied.terms, inbox.Delivery(bytes(applied.body)))
    inbox.record_rejected(inbox.Delivery(b"garbage"), "body: must be valid JSON")
    conflicting(applied, resolved_by_id=1)
    Webhook.objects.filter(status=Webhook.Status.RECEIVED).update(status=Webhook.Status.FAILED)
    make_webhook()
    TaskResult.objects.create(task_id="webhook-1-1")
    aged(Webhook, "received_at")
    for kind in (DuplicateDelivery, RejectedDelivery, ConflictingDelivery):
        aged(kind, "received_at")
    aged(TaskResult, "date_done")


def pruned(**options: Any) -> str:
    out = StringIO()
    call_command("prune", stdout=out, **options)
    return out.getvalue()


def bodies_left() -> dict[str, bool]:
    return {webhook.status: bool(webhook.body) for webhook in Webhook.objects.all()}


@pytest.fixture(autouse=True)
def a_year(settings: Settings) -> None:
    settings.RAW_BODY_RETENTION_DAYS = settings.DELIVERY_RETENTION_DAYS = (
        settings.TASK_RESULT_RETENTION_DAYS
    ) = 365


def test_what_is_old_goes_and_the_ledger_stays() -> None:
    an_old_house()
    before = [list(model.objects.values()) for model in (Payment, BalanceLog)]

    told = pruned()

    assert bodies_left() == {"applied": False, "failed": True, "received": True}
    gone = (DuplicateDelivery, RejectedDelivery, ConflictingDelivery, TaskResult)
    assert [kind._default_manager.count() for kind in gone] == [0, 0, 0, 0]
    assert [list(model.objects.values()) for model in (Payment, BalanceLog)] == before
    assert "raw bodies of webhooks, older than 365 days: 1 gone" in told
    assert "task results, older than 365 days: 1 gone" in told
    assert Webhook.objects.get(status=Webhook.Status.APPLIED).terms is not None


def test_what_is_young_stays() -> None:
    an_old_house()
    for rows in (Webhook.objects, RejectedDelivery.objects):
        rows.update(received_at=timezone.now())
    TaskResult.objects.update(date_done=timezone.now())

    pruned()

    assert all(bodies_left().values())
    assert RejectedDelivery.objects.count() == TaskResult.objects.count() == 1


def test_zero_days_are_for_ever(settings: Settings) -> None:
    settings.RAW_BODY_RETENTION_DAYS = settings.DELIVERY_RETENTION_DAYS = (
        settings.TASK_RESULT_RETENTION_DAYS
    ) = 0
    an_old_house()

    assert "raw bodies of webhooks, kept for ever: 0 gone" in pruned()
    assert all(bodies_left().values())
    assert RejectedDelivery.objects.count() == TaskResult.objects.count() == 1


def test_a_dry_run_counts_the_same_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 2)
    an_old_house()
    for _ in range(5):
        inbox.record_rejected(inbox.Delivery(b"garbage"), "body: must be valid JSON")
    aged(RejectedDelivery, "received_at")

    would = pruned(dry_run=True)

    assert "rejected deliveries, older than 365 days: 6 would go" in would
    assert all(bodies_left().values())
    assert RejectedDelivery.objects.count() == 6
    assert pruned() == would.replace("would go", "gone")


def applied_and_aged(webhooks: int) -> list[int]:
    """Their keys, oldest first."""
    for _ in range(webhooks):
        make_webhook()
    apply_batch(100)
    aged(Webhook, "received_at")
    return list(Webhook.objects.order_by("pk").values_list("pk", flat=True))


def with_bodies() -> list[int]:
    return list(Webhook.objects.exclude(body=b"").order_by("pk").values_list("pk", flat=True))


def test_a_prune_of_bodies_that_is_cut_off_goes_on_in_the_next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 2)
    keys = applied_and_aged(7)
    left = []
    for _ in range(4):
        retention.prune(lambda *_: None, full_scan=False, seconds_max=0)
        left.append(with_bodies())

    assert left == [keys[2:], keys[4:], keys[6:], []]


def test_a_body_of_a_webhook_that_ended_late_is_emptied_by_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 2)
    late = make_webhook(status=Webhook.Status.FAILED)
    applied_and_aged(6)
    tasks.prune()
    assert with_bodies() == [late.pk]
    Webhook.objects.filter(pk=late.pk).update(status=Webhook.Status.DISMISSED)

    tasks.prune()
    assert with_bodies() == [late.pk]
    pruned()
    assert with_bodies() == []


def test_rows_become_old_behind_those_that_were_emptied_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 2)
    keys = applied_and_aged(9)
    Webhook.objects.filter(pk__in=keys[4:]).update(received_at=timezone.now())
    tasks.prune()
    assert with_bodies() == keys[4:]

    aged(Webhook, "received_at")
    tasks.prune()
    assert with_bodies() == []


def test_the_younger_rows_of_a_page_are_emptied_when_they_are_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page is not done as long as some of its rows are still to become old."""
    monkeypatch.setattr(retention, "BATCH_ROWS", 5)
    keys = applied_and_aged(9)
    Webhook.objects.filter(pk__in=keys[3:]).update(received_at=timezone.now())
    retention.prune(lambda *_: None, full_scan=False)
    assert with_bodies() == keys[3:]

    aged(Webhook, "received_at")
    retention.prune(lambda *_: None, full_scan=False)
    assert with_bodies() == []


def test_a_webhook_of_a_clock_that_was_ahead_does_not_hold_up_those_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 20)
    keys = applied_and_aged(40)
    ahead = [keys[3], keys[18]]
    Webhook.objects.filter(pk__in=ahead).update(received_at=datetime(2099, 1, 1, tzinfo=UTC))

    retention.prune(lambda *_: None, full_scan=False)

    assert with_bodies() == ahead


@pytest.mark.parametrize("full_scan", [True, False])
@pytest.mark.parametrize("bad", [datetime(2000, 1, 1, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC)])
def test_a_row_of_a_bad_clock_takes_no_other_with_it(bad: datetime, full_scan: bool) -> None:
    """The newest of each kind, and one in the middle: those of the year 2000 go; the others are of today."""
    for _ in range(40):
        webhook = make_webhook()
        inbox.record_rejected(inbox.Delivery(b"garbage"), "body: must be valid JSON")
        TaskResult.objects.create(task_id=f"webhook-{webhook.pk}-1")
    apply_batch(100)
    for rows, field in (
        (Webhook, "received_at"),
        (RejectedDelivery, "received_at"),
        (TaskResult, "date_done"),
    ):
        keys = list(rows._default_manager.order_by("pk").values_list("pk", flat=True))
        rows._default_manager.filter(pk__in=[keys[19], keys[-1]]).update(**{field: bad})

    retention.prune(lambda *_: None, full_scan=full_scan)

    left = 38 if bad.year == 2000 else 40
    assert (len(with_bodies()), RejectedDelivery.objects.count(), TaskResult.objects.count()) == (left,) * 3


def test_an_open_conflict_stays_however_old_it_is() -> None:
    webhook = make_webhook()
    conflict = conflicting(webhook)
    conflicting(webhook, resolved_by_id=1)
    aged(ConflictingDelivery, "received_at")

    assert "conflicting deliveries, older than 365 days: 1 would go" in pruned(dry_run=True)
    tasks.prune()
    pruned()

    assert list(ConflictingDelivery.objects.all()) == [conflict]


def test_a_backlog_of_one_kind_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 1)
    applied_and_aged(3)
    inbox.record_rejected(inbox.Delivery(b"garbage"), "body: must be valid JSON")
    aged(RejectedDelivery, "received_at")

    retention.prune(lambda *_: None, full_scan=False, seconds_max=0)

    assert (len(with_bodies()), RejectedDelivery.objects.count()) == (2, 0)


def test_a_short_run_leaves_the_rest_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 2)
    for _ in range(5):
        inbox.record_rejected(inbox.Delivery(b"garbage"), "body: must be valid JSON")
    aged(RejectedDelivery, "received_at")
    seen: list[int] = []

    retention.prune(lambda _, rows: seen.append(rows), full_scan=False, seconds_max=0)
    assert (seen, RejectedDelivery.objects.count()) == ([2], 3)
    retention.prune(lambda _, rows: seen.append(rows), full_scan=False)
    assert (seen, RejectedDelivery.objects.count()) == ([2, 2, 1], 0)


def session(key: str, **until_end: float) -> Session:
    return Session.objects.create(session_key=key, expire_date=timezone.now() + timedelta(**until_end))


def test_expired_sessions_go_and_the_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 2)
    for number in range(5):
        session(f"old{number}", seconds=-1)
    session("kept", days=1)

    assert "sessions, expired: 5 would go" in pruned(dry_run=True)
    tasks.prune()
    assert [kept.pk for kept in Session.objects.all()] == ["kept"]


def test_a_session_that_was_renewed_meanwhile_stays() -> None:
    renewed = session("renewed", days=1)
    sessions = next(kind for kind in retention.rules(full_scan=False) if kind.name == "sessions")
    sessions.delete([renewed.pk])
    assert Session.objects.exists()


def test_a_body_of_a_webhook_that_changed_its_state_meanwhile_stays() -> None:
    webhook = make_webhook()
    retention._empty_bodies([webhook.pk])
    webhook.refresh_from_db()
    assert bytes(webhook.body) == payment_body(webhook.terms)
