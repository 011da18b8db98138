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
def growth() -> Callable[..., float]:
    """Return a function that returns by how much a sample has grown since the test began."""
    before = {(sample.name, *sample.labels.items()): sample.value for sample in samples()}

    def growth_of(name: str, **labels: str) -> float:
        now = REGISTRY.get_sample_value(name, labels) or 0.0
        return now - before.get((name, *labels.items()), 0.0)

    return growth_of


def samples() -> list[Any]:
    return [sample for family in REGISTRY.collect() for sample in family.samples]


def test_batch_is_counted_with_size(growth: Callable[..., float]) -> None:
    for _ in range(3):
        make_webhook()

    applying.apply_batch(500)
    applying.apply_batch(500)  # an empty batch is not counted

    assert growth("prihod_webhooks_applied_total") == 3
    assert (growth("prihod_batch_size_count"), growth("prihod_batch_size_sum")) == (1, 3)
    assert growth("prihod_batch_duration_seconds_count") == 1


def test_conflict_counts_as_failed_only(growth: Callable[..., float]) -> None:
    payment = terms(1_00)
    post_payments(payment)
    make_webhook(terms(2_00, operation_id=payment.operation_id))
    make_webhook()

    applying.apply_batch(500)

    assert growth("prihod_webhooks_applied_total") == 1
    assert growth("prihod_webhooks_failed_total", kind="conflict") == 1


def test_failed_webhook_is_counted_by_exception_class(
    growth: Callable[..., float], monkeypatch: pytest.MonkeyPatch, settings: Any, sent: Sent
) -> None:
    webhook, real_post = make_webhook(next_attempt_at=clock.database_now()), applying.post

    def post(payments: QuerySet[Any], organizations: Any) -> None:
        if payments.filter(pk=webhook.pk):
            raise ValueError("cannot (really) post")
        real_post(payments, organizations)

    settings.ATTEMPTS_MAX = 1
    monkeypatch.setattr(applying, "post", post)

    with pytest.raises(applying.BatchFailed):
        tasks.retry_one(webhook.pk, 1)

    assert growth("prihod_webhook_attempts_total") == 1
    assert growth("prihod_webhooks_failed_total", kind="ValueError") == 1
    assert growth("prihod_webhooks_applied_total") == 0


def test_webhook_failed_by_sweeper_is_counted(growth: Callable[..., float], settings: Any) -> None:
    for error in ("", "KeyError('x')"):
        make_webhook(attempts=settings.ATTEMPTS_MAX, next_attempt_at=clock.database_now(), last_error=error)

    retries.fail_exhausted()

    assert Webhook.objects.failed().count() == 2
    assert growth("prihod_webhooks_failed_total", kind="died") == 1
    assert growth("prihod_webhooks_failed_total", kind="KeyError") == 1


IN_SUBPROCESSES = """
import os, sys
from core.observability.prometheus_multiprocess import set_process_name, use_directory
use_directory(os.environ["PROMETHEUS_MULTIPROC_DIR"])
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

COUNTER = Counter("tested", "")
COUNTER.inc()
for _ in range(5):
    if (pid := os.fork()) == 0:
        set_process_name("subprocess")
        COUNTER.inc()
        os._exit(0)
    os.waitpid(pid, 0)
registry = CollectorRegistry()
MultiProcessCollector(registry)
sys.stdout.write(generate_latest(registry).decode())
"""


@pytest.mark.process
def test_subprocesses_of_one_name_share_one_metrics_file(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", IN_SUBPROCESSES],
        cwd=ROOT,
        env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "counts")},
        check=True,
        capture_output=True,
        text=True,
    )

    assert "tested_total 6.0" in result.stdout
    assert len(list((tmp_path / "counts").iterdir())) == 2


COMMAND = """
import sys
from core.observability.prometheus_multiprocess import use_directory
use_directory(sys.argv[1])
from prometheus_client import Counter

counter = Counter("tested", "")
if sys.argv[2] == "counts":
    counter.inc()
"""


@pytest.mark.process
@pytest.mark.parametrize(("behaviour", "files"), [("counts", 1), ("counts nothing", 0)])
def test_metrics_file_of_a_process_that_counted_nothing_is_removed(
    tmp_path: Path, behaviour: str, files: int
) -> None:
    command = [sys.executable, "-c", COMMAND, str(tmp_path), behaviour]
    subprocess.run(command, cwd=ROOT, env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}, check=True)

    assert len(list(tmp_path.iterdir())) == files
