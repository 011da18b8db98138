import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db.models import QuerySet
from prometheus_client import REGISTRY

from core.db import clock
from ingest.models import Webhook
from tests.factories import make_webhook, post_payments, terms
from tests.harness.servers import ROOT
from worker import applying, retries, tasks

pytestmark = pytest.mark.django_db(transaction=True)
Sent = Callable[[], list[Any]]


@pytest.fixture
def more() -> Callable[..., float]:
    """By how much a sample has grown since the test began."""
    before = {(sample.name, *sample.labels.items()): sample.value for sample in samples()}

    def grown(name: str, **labels: str) -> float:
        now = REGISTRY.get_sample_value(name, labels) or 0.0
        return now - before.get((name, *labels.items()), 0.0)

    return grown


def samples() -> list[Any]:
    return [sample for family in REGISTRY.collect() for sample in family.samples]


def test_a_batch_is_counted_with_its_size(more: Callable[..., float]) -> None:
    for _ in range(3):
        make_webhook()

    applying.apply_batch(500)
    applying.apply_batch(500)  # finds nothing, and is no batch

    assert more("prihod_webhooks_applied_total") == 3
    assert (more("prihod_batch_size_count"), more("prihod_batch_size_sum")) == (1, 3)
    assert more("prihod_batch_duration_seconds_count") == 1


def test_a_conflict_is_a_failure_and_nothing_that_was_applied(more: Callable[..., float]) -> None:
    told = terms(1_00)
    post_payments(told)
    make_webhook(terms(2_00, operation_id=told.operation_id))
    make_webhook()

    applying.apply_batch(500)

    assert more("prihod_webhooks_applied_total") == 1
    assert more("prihod_webhooks_failed_total", kind="conflict") == 1


def test_what_is_given_up_is_counted_by_the_kind_of_its_error(
    more: Callable[..., float], monkeypatch: pytest.MonkeyPatch, settings: Any, sent: Sent
) -> None:
    webhook, real_post = make_webhook(next_attempt_at=clock.database_now()), applying.post

    def post(told: QuerySet[Any], organizations: Any) -> None:
        if told.filter(pk=webhook.pk):
            raise ValueError("nobody (really) knows")
        real_post(told, organizations)

    settings.ATTEMPTS_MAX = 1
    monkeypatch.setattr(applying, "post", post)

    with pytest.raises(applying.BatchFailed):
        tasks.retry_one(webhook.pk, 1)

    assert more("prihod_webhook_attempts_total") == 1
    assert more("prihod_webhooks_failed_total", kind="ValueError") == 1
    assert more("prihod_webhooks_applied_total") == 0


def test_what_died_in_its_last_attempt_is_counted(more: Callable[..., float], settings: Any) -> None:
    for error in ("", "KeyError('x')"):
        make_webhook(attempts=settings.ATTEMPTS_MAX, next_attempt_at=clock.database_now(), last_error=error)

    retries.fail_exhausted()

    assert Webhook.objects.failed().count() == 2
    assert more("prihod_webhooks_failed_total", kind="died") == 1
    assert more("prihod_webhooks_failed_total", kind="KeyError") == 1


IN_CHILDREN = """
import os, sys
from core.observability.prometheus_multiprocess import count_as, share_counts_in
share_counts_in(os.environ["PROMETHEUS_MULTIPROC_DIR"])
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

COUNTER = Counter("tested", "")
COUNTER.inc()
for _ in range(5):
    if (child := os.fork()) == 0:
        count_as("child")
        COUNTER.inc()
        os._exit(0)
    os.waitpid(child, 0)
registry = CollectorRegistry()
MultiProcessCollector(registry)
sys.stdout.write(generate_latest(registry).decode())
"""


def test_short_lived_children_of_one_name_count_on_in_one_file(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-c", IN_CHILDREN],
        cwd=ROOT,
        env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "counts")},
        check=True,
        capture_output=True,
        text=True,
    )

    assert "tested_total 6.0" in told.stdout
    assert len(list((tmp_path / "counts").iterdir())) == 2
