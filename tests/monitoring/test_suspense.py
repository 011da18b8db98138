"""Money that waits in suspense, on the dashboard, as a problem and as metrics."""

from datetime import timedelta

import pytest
from django.conf import LazySettings
from django.utils import timezone

from core.db import clock
from monitoring import dashboard, problems
from monitoring.problem import Problem, Severity
from monitoring.prometheus import database_metrics
from monitoring.stats import Stats
from tests.factories import SUSPENSE, post_payments, terms

pytestmark = pytest.mark.django_db
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


@pytest.fixture(autouse=True)
def waiting() -> None:
    post_payments(terms(100_50, inn=SUSPENSE), terms(2_00, inn=SUSPENSE))


def suspense_after(age: timedelta) -> tuple[dashboard.Tile, list[Problem]]:
    stats = Stats(clock.database_now() + age)
    tile = next(each for each in dashboard.tiles(stats) if each.label == "In suspense")
    return tile, [each for each in problems.data_problems(stats) if each.cause == "suspense_overdue"]


def test_tile_shows_number_sum_and_age() -> None:
    tile, found = suspense_after(5 * DAY - MINUTE)

    assert (tile.value, tile.url) == ("2", "/admin/ledger/unassignedpayment/")
    assert tile.note.replace("\N{NO-BREAK SPACE}", " ") == "102,50 ₽, the first for 5 days"
    assert (tile.severity, found) == (Severity.INFO, [])


def test_payment_that_waits_too_long_is_a_problem(settings: LazySettings) -> None:
    settings.SUSPENSE_ALERT_AFTER_DAYS = 2.0
    tile, (problem,) = suspense_after(2 * DAY + MINUTE)

    assert tile.severity == problem.severity == Severity.WARNING
    assert problem.magnitude == 2
    assert problem.text == "2 payments wait in suspense for an organization, the first for 2 days"
    assert problems.runbook_entry(problem.cause) == "docs/runbook.md#unassigned-payments"


def test_metrics_have_number_sum_and_age(monkeypatch: pytest.MonkeyPatch) -> None:
    later = timezone.now() + DAY
    monkeypatch.setattr("monitoring.prometheus.clock.database_now", lambda: later)
    gauges = dict(line.rsplit(" ", 1) for line in database_metrics().decode().splitlines() if line[0] != "#")

    assert float(gauges["prihod_suspense_payments"]) == 2
    assert float(gauges["prihod_suspense_kopecks"]) == 102_50
    assert abs(float(gauges["prihod_suspense_oldest_age_seconds"]) - DAY.total_seconds()) < 60
