"""The scheduler has the matching run when a posted line is applied, and only then."""

import pytest

from ingest.models import OperatorAction
from statements import actions, day_totals
from statements.matching import match, match_if_due
from statements.models import Bucket, StatementLine
from statements.tasks import MATCH_TASK, match_changed, request_matching
from tests.reconciliation.settlement import (
    apply_all,
    filled,
    import_lines,
    line,
    lines_in,
    operator,
    run,
)
from worker import nightly_verification
from worker.celery import app


@pytest.mark.django_db
def test_matching_follows_the_posting(monkeypatch: pytest.MonkeyPatch) -> None:
    rings: list[str] = []
    monkeypatch.setattr("ingest.doorbell.ring_now", lambda task: not rings.append(task))
    import_lines(line("0033003303", "1", 10_00), came_in=10_00)
    missing = lines_in(Bucket.MISSING_WEBHOOK)
    run(actions.create(OperatorAction.Kind.POST, missing, operator(), "not notified"))
    request_matching()
    assert not rings  # it waits for the worker
    apply_all()
    assert filled() == {"unposted": (1, 10_00)}

    request_matching()
    assert rings == [MATCH_TASK]
    match_changed()

    assert filled() == {"matched": (1, 10_00)}
    request_matching()
    assert rings == [MATCH_TASK]


@pytest.mark.django_db
def test_matching_runs_without_a_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.doorbell.ring_now", lambda task: False)
    import_lines(line("0033003303", "1", 10_00), came_in=10_00)
    day_totals.undecide(StatementLine.objects.all())

    request_matching()

    assert filled() == {"missing_webhook": (1, 10_00)}


@pytest.mark.django_db
def test_matching_that_another_one_made_superfluous_does_nothing() -> None:
    """It found itself due, and waited for the other one's locks."""
    import_lines(line("0033003303", "1", 10_00), came_in=10_00)
    day_totals.undecide(StatementLine.objects.all())

    match(is_needed=lambda: False)

    assert filled() == {}
    match_if_due()
    assert filled() == {"missing_webhook": (1, 10_00)}


def test_tasks_are_registered_and_run_every_night() -> None:
    app.loader.import_default_modules()
    assert {MATCH_TASK, "statements.tasks.request_matching"} <= set(app.tasks)
    assert "match" in {step.__name__ for step in nightly_verification._following}
