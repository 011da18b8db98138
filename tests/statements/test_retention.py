"""Bodies of bank statements expire; their lines don't."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from core.db import clock
from statements.importing import import_statement
from statements.models import BankStatement, StatementLine
from tests.reconciliation.settlement import import_lines, line, statement_of
from worker import retention


@pytest.mark.django_db
@pytest.mark.parametrize(("days", "is_kept"), [(0, True), (30, False), (32, True)])
def test_bodies_are_emptied_by_age_and_the_file_stays_known(
    settings: Any, monkeypatch: pytest.MonkeyPatch, days: int, is_kept: bool
) -> None:
    settings.RAW_BODY_RETENTION_DAYS = days
    import_lines(line("0033003303", "1", 10_00), came_in=10_00)
    monkeypatch.setattr(clock, "database_now", lambda: timezone.now() + timedelta(days=31))

    retention.prune(lambda *_: None, full_scan=False)

    assert bool(BankStatement.objects.get().body) == is_kept
    again = import_statement(statement_of(line("0033003303", "1", 10_00), came_in=10_00), "again")
    assert again.is_repeated
    assert StatementLine.objects.count() == 1
