from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.db import OperationalError
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


def create_expired_data() -> None:
    """Create one expired row for each rule, and one applied, one failed and one received webhook."""
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
    for model in (DuplicateDelivery, RejectedDelivery, ConflictingDelivery):
        aged(model, "received_at")
    aged(TaskResult, "date_done")


def pruned(**options: Any) -> str:
    out = StringIO()
    call_command("prune", stdout=out, **options)
    return out.getvalue()


def bodies_left() -> dict[str, bool]:
    return {webhook.status: bool(webhook.body) for webhook in Webhook.objects.all()}


@pytest.fixture(autouse=True)
def one_year(settings: Settings) -> None:
    settings.RAW_BODY_RETENTION_DAYS = settings.DELIVERY_RETENTION_DAYS = (
        settings.TASK_RESULT_RETENTION_DAYS
    ) = 365


def test_expired_data_is_deleted_and_ledger_is_kept() -> None:
    create_expired_data()
    before = [list(model.objects.values()) for model in (Payment, BalanceLog)]

    output = pruned()

    assert bodies_left() == {"applied": False, "failed": True, "received": True}
    deleted = (DuplicateDelivery, RejectedDelivery, ConflictingDelivery, TaskResult)
    assert [model._default_manager.count() for model in deleted] == [0, 0, 0, 0]
    assert [list(model.objects.values()) for model in (Payment, BalanceLog)] == before
    assert "raw bodies of webhooks, older than 365 days: 1 deleted" in output
    assert "task results, older than 365 days: 1 deleted" in output
    assert Webhook.objects.get(status=Webhook.Status.APPLIED).terms is not None


def test_recent_data_is_kept() -> None:
    create_expired_data()
    for rows in (Webhook.objects, RejectedDelivery.objects):
        rows.update(received_at=timezone.now())
    TaskResult.objects.update(date_done=timezone.now())

    pruned()

    assert all(bodies_left().values())
    assert RejectedDelivery.objects.count() == TaskResult.objects.count() == 1


def test_zero_days_keep_forever(settings: Settings) -> None:
    settings.RAW_BODY_RETENTION_DAYS = settings.DELIVERY_RETENTION_DAYS = (
        settings.TASK_RESULT_RETENTION_DAYS
    ) = 0
    create_expired_data()

    assert "raw bodies of webhooks, kept forever: 0 deleted" in pruned()
    assert all(bodies_left().values())
    assert RejectedDelivery.objects.count() == TaskResult.objects.count() == 1


def test_dry_run_counts_without_deleting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 2)
    create_expired_data()
    for _ in range(5):
        inbox.record_rejected(inbox.Delivery(b"garbage"), "body: must be valid JSON")
    aged(RejectedDelivery, "received_at")

    dry_run = pruned(dry_run=True)

    assert "rejected deliveries, older than 365 days: 6 would be deleted" in dry_run
    assert all(bodies_left().values())
    assert RejectedDelivery.objects.count() == 6
    assert pruned() == dry_run.replace("would be deleted", "deleted")


def applied_and_aged(webhooks: int) -> list[int]:
    """Create applied webhooks of long ago; return their keys, oldest first."""
    for _ in range(webhooks):
        make_webhook()
    apply_batch(100)
    aged(Webhook, "received_at")
    return list(Webhook.objects.order_by("pk").values_list("pk", flat=True))


def with_bodies() -> list[int]:
    return list(Webhook.objects.exclude(body=b"").order_by("pk").values_list("pk", flat=True))


def test_database_that_fails_ends_the_command_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> dict[str, int]:
        raise OperationalError(2013, "gone away")

    monkeypatch.setattr(retention, "count_expired", fail)
    with pytest.raises(CommandError, match=r"Database error: .*gone away"):
        pruned(dry_run=True)


def test_interrupted_prune_of_bodies_resumes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 2)
    keys = applied_and_aged(7)
    left = []
    for _ in range(4):
        retention.prune(lambda *_: None, full_scan=False, seconds_max=0)
        left.append(with_bodies())

    assert left == [keys[2:], keys[4:], keys[6:], []]


def test_body_of_webhook_dismissed_late_is_emptied_by_full_scan(
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


def test_bodies_expiring_after_checkpoint_are_emptied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 2)
    keys = applied_and_aged(9)
    Webhook.objects.filter(pk__in=keys[4:]).update(received_at=timezone.now())
    tasks.prune()
    assert with_bodies() == keys[4:]

    aged(Webhook, "received_at")
    tasks.prune()
    assert with_bodies() == []


def test_younger_bodies_of_page_are_emptied_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint stays before the rows that have not expired."""
    monkeypatch.setattr(retention, "BATCH_ROWS", 5)
    keys = applied_and_aged(9)
    Webhook.objects.filter(pk__in=keys[3:]).update(received_at=timezone.now())
    retention.prune(lambda *_: None, full_scan=False)
    assert with_bodies() == keys[3:]

    aged(Webhook, "received_at")
    retention.prune(lambda *_: None, full_scan=False)
    assert with_bodies() == []


def test_webhook_with_future_timestamp_does_not_block_others(
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
def test_row_with_wrong_timestamp_does_not_affect_others(bad: datetime, full_scan: bool) -> None:
    """The newest row of each table and one in the middle have the wrong timestamp."""
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


def test_open_conflict_is_never_deleted() -> None:
    webhook = make_webhook()
    conflict = conflicting(webhook)
    conflicting(webhook, resolved_by_id=1)
    aged(ConflictingDelivery, "received_at")

    assert "conflicting deliveries, older than 365 days: 1 would be deleted" in pruned(dry_run=True)
    tasks.prune()
    pruned()

    assert list(ConflictingDelivery.objects.all()) == [conflict]


def test_backlog_of_one_rule_does_not_delay_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 1)
    applied_and_aged(3)
    inbox.record_rejected(inbox.Delivery(b"garbage"), "body: must be valid JSON")
    aged(RejectedDelivery, "received_at")

    retention.prune(lambda *_: None, full_scan=False, seconds_max=0)

    assert (len(with_bodies()), RejectedDelivery.objects.count()) == (2, 0)


def test_time_limit_leaves_rest_for_next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 2)
    for _ in range(5):
        inbox.record_rejected(inbox.Delivery(b"garbage"), "body: must be valid JSON")
    aged(RejectedDelivery, "received_at")
    progress: list[int] = []

    retention.prune(lambda _, rows: progress.append(rows), full_scan=False, seconds_max=0)
    assert (progress, RejectedDelivery.objects.count()) == ([2], 3)
    retention.prune(lambda _, rows: progress.append(rows), full_scan=False)
    assert (progress, RejectedDelivery.objects.count()) == ([2, 2, 1], 0)


def session(key: str, **until_end: float) -> Session:
    return Session.objects.create(session_key=key, expire_date=timezone.now() + timedelta(**until_end))


def test_only_expired_sessions_are_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 2)
    for number in range(5):
        session(f"old{number}", seconds=-1)
    session("kept", days=1)

    assert "sessions, expired: 5 would be deleted" in pruned(dry_run=True)
    tasks.prune()
    assert [kept.pk for kept in Session.objects.all()] == ["kept"]


def test_session_renewed_meanwhile_is_kept() -> None:
    renewed = session("renewed", days=1)
    sessions = next(rule for rule in retention.rules(full_scan=False) if rule.name == "sessions")
    sessions.delete([renewed.pk])
    assert Session.objects.exists()


def test_body_of_webhook_replayed_meanwhile_is_kept() -> None:
    webhook = make_webhook()
    retention._empty_bodies([webhook.pk])
    webhook.refresh_from_db()
    assert bytes(webhook.body) == payment_body(webhook.terms)
