import re
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from ingest import inbox
from ingest.models import Verification, Webhook
from monitoring import figures
from tests.cast import received
from tests.monitoring.test_dashboard import verification
from worker import clock
from worker.beats import beat
from worker.models import Beat

pytestmark = pytest.mark.django_db


def told(answer: Any) -> dict[str, float]:
    """Each sample's value by its name, with its labels as Prometheus writes them."""
    return {
        re.sub(
            r"\{\}$", "", f"{one.name}{{{','.join(f'{k}={v}' for k, v in one.labels.items())}}}"
        ): one.value
        for family in text_string_to_metric_families(answer.content.decode())
        for one in family.samples
    }


@pytest.fixture
def open_to_all(settings: Any) -> None:
    settings.DEBUG = True


def test_in_production_nobody_sees_metrics_as_long_as_no_token_is_set() -> None:
    answer = Client().get("/metrics")
    assert (answer.status_code, answer.json()) == (404, {"error": "Not found"})


@pytest.mark.parametrize("debug", [True, False])
def test_with_a_token_only_its_bearer_sees_them(settings: Any, debug: bool) -> None:
    settings.DEBUG, settings.METRICS_TOKEN = debug, "s3cret-ключ"

    for header in ["", "Bearer", "Bearer wrong", "s3cret", "Basic s3cret"]:
        answer = Client().get("/metrics", headers={"Authorization": header})
        assert answer.status_code == 401
        assert answer["WWW-Authenticate"] == "Bearer"

    settings.METRICS_TOKEN = "s3cret"
    answer = Client().get("/metrics", headers={"Authorization": "Bearer s3cret"})
    assert answer.status_code == 200
    assert answer["Content-Type"].startswith("text/plain; version=")


@pytest.mark.usefixtures("open_to_all")
def test_gauges_are_the_dashboards_figures() -> None:
    received()
    received(status=Webhook.Status.FAILED)
    for reason in ("one", "another"):
        inbox.keep_unrecognized(b"{}", reason.encode(), reason, "tbank")
    beat(Beat.Kind.WORKER, "one", 4)
    beat(Beat.Kind.WORKER, "two", 2)
    beat(Beat.Kind.SCHEDULER, "three", 1)
    Beat.objects.filter(name="two").update(seen_at=clock.now() - figures.HOUR / 2)
    verification(drift="something")

    gauges = told(Client().get("/metrics"))

    assert gauges["prihod_database_up"] == 1
    assert gauges["prihod_backlog"] == 1
    assert 0 <= gauges["prihod_oldest_waiting_seconds"] < 60
    assert gauges["prihod_failed_waiting"] == 1
    assert gauges["prihod_unrecognized_waiting"] == 2
    assert gauges["prihod_workers_alive"] == 1
    assert gauges["prihod_worker_processes_alive"] == 4
    assert gauges["prihod_schedulers_alive"] == 1
    assert gauges["prihod_drift"] == 1
    assert gauges["prihod_verified_at"] == pytest.approx(Verification.objects.get().ended_at.timestamp())


@pytest.mark.usefixtures("open_to_all")
def test_books_that_were_never_verified_are_no_right_books() -> None:
    assert "prihod_drift" not in told(Client().get("/metrics"))


@pytest.mark.usefixtures("open_to_all")
def test_a_process_that_is_just_beginning_has_counted_nothing_yet(settings: Any, tmp_path: Path) -> None:
    """Its file is created before it has its size."""
    settings.METRICS_DIR = tmp_path
    (tmp_path / "counter_4711.db").touch()

    answer = Client().get("/metrics")

    assert answer.status_code == 200
    assert told(answer)["prihod_database_up"] == 1


@pytest.mark.usefixtures("open_to_all")
def test_without_the_database_counts_are_told_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OperationalError(2006, "gone away")

    monkeypatch.setattr(clock, "now", fail)

    gauges = told(Client().get("/metrics"))

    assert gauges["prihod_database_up"] == 0
    assert "prihod_backlog" not in gauges
    assert "prihod_applied_total" in gauges
