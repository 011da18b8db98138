"""The reconciliation on the dashboard, as problems, metrics and findings of the doctor."""

import re
from contextlib import suppress
from datetime import date, datetime, timedelta
from io import StringIO
from unittest.mock import patch
from zoneinfo import ZoneInfo

import pytest
from django.conf import LazySettings
from django.core.management import call_command

from monitoring import doctor, problems
from monitoring.problem import Problem, Severity
from monitoring.prometheus import database_metrics
from monitoring.stats import Stats
from statements import standing
from statements.importing import import_statement
from statements.matching import match
from statements.models import BankStatement, NightlyReconciliation, StatementLine
from tests.admin_client import staff_client
from tests.screenshots.sample_statement import statement
from tests.statements.test_pages import MONDAY, account, import_day, movement, text_of

pytestmark = pytest.mark.django_db
CAUSES = {"unexplained_difference", "balance_break", "differences_overdue", "unproven_statements"}
CAUSES |= {"uncovered_days"}
MOSCOW = ZoneInfo("Europe/Moscow")


@pytest.fixture(autouse=True)
def moscow(settings: LazySettings) -> None:
    settings.BANK_TIME_ZONE = MOSCOW


def on(day: date) -> Stats:
    return Stats(datetime(day.year, day.month, day.day, 12, tzinfo=MOSCOW))


def found_on(day: date) -> dict[str, Problem]:
    return {each.cause: each for each in problems.data_problems(on(day)) if each.cause in CAUSES}


def day_with_a_difference() -> None:
    account(since=MONDAY)
    import_day(MONDAY, 0, movement())
    match()


def test_without_statements_there_is_no_problem() -> None:
    account()

    assert found_on(date(2026, 6, 1)) == {}


def test_difference_is_a_problem_once_it_is_older_than_the_setting(settings: LazySettings) -> None:
    settings.STATEMENT_ALERT_AFTER_DAYS = 3
    day_with_a_difference()

    assert found_on(MONDAY + timedelta(days=3)) == {}
    problem = found_on(MONDAY + timedelta(days=4))["differences_overdue"]
    assert (problem.magnitude, problem.severity) == (1, Severity.WARNING)
    assert "1 difference between ledger and bank is not settled after 3 d" in problem.text
    StatementLine.objects.update(bucket="excluded")
    assert "differences_overdue" not in found_on(MONDAY + timedelta(days=4))


def test_working_days_without_a_proven_statement_are_a_problem(settings: LazySettings) -> None:
    settings.STATEMENT_ALERT_AFTER_DAYS = 3
    day_with_a_difference()
    friday = MONDAY + timedelta(days=4)

    assert "uncovered_days" not in found_on(friday)  # Tuesday is three days ago
    assert found_on(friday + timedelta(days=1))["uncovered_days"].magnitude == 1
    assert found_on(friday + timedelta(days=7))["uncovered_days"].magnitude == 5  # no weekend


def test_unproven_statement_is_a_problem_until_a_proven_one_replaces_it() -> None:
    account(since=MONDAY)
    body = statement(MONDAY, MONDAY, 0, [movement()])
    import_statement(body.replace(b"=10.00", b"=11.00", 1), "odd.txt")
    assert found_on(MONDAY)["unproven_statements"].magnitude == 1

    import_statement(body, "right.txt")

    assert "unproven_statements" not in found_on(MONDAY)
    assert BankStatement.objects.count() == 2


def test_break_between_balances_is_critical() -> None:
    account(since=MONDAY)
    import_day(MONDAY, 0, movement())
    import_day(MONDAY + timedelta(days=1), 11_00)

    assert found_on(MONDAY)["balance_break"].severity is Severity.CRITICAL


def test_night_saves_what_is_unexplained_and_the_front_page_shows_it() -> None:
    day_with_a_difference()
    viewer = staff_client("view_webhook", "view_statementline")
    assert "Reconciliation with the bank None yet" in text_of(viewer.get("/admin/"))

    saved = standing.check()

    assert saved
    assert (saved.unexplained, saved.differences, saved.kopecks) == (0, 1, 10_00)
    assert "1 difference to settle" in text_of(viewer.get("/admin/"))
    assert "unexplained_difference" not in found_on(MONDAY)
    output = StringIO()
    with suppress(SystemExit):
        call_command("doctor", stdout=output)
    assert re.search(r"ok  statements +reconciled at .* UTC: 0 kopecks unexplained", output.getvalue())
    with patch("statements.buckets.ledger", return_value=5):
        standing.check()
    assert found_on(MONDAY)["unexplained_difference"].severity is Severity.CRITICAL
    assert "Unexplained: 0,05 ₽" in text_of(viewer.get("/admin/"))
    other = staff_client("view_webhook", name="vera")
    assert "Reconciliation with the bank" not in text_of(other.get("/admin/"))


def test_night_sums_what_is_unexplained_month_by_month() -> None:
    account(since=date(2026, 1, 1))
    days = [date(2026, 1, 30), date(2026, 1, 31), date(2026, 3, 1), MONDAY]
    for number, day in enumerate(days):
        import_day(day, 10_00 * number, movement(str(number)))
    match()

    with patch("statements.buckets.ledger", side_effect=[3, 500]) as ledger:
        saved = standing.check()

    assert saved
    assert saved.unexplained == 503
    months = [call.args[0] for call in ledger.call_args_list]
    assert [(month.first, month.last) for month in months] == [
        (date(2026, 1, 30), date(2026, 1, 31)),
        (date(2026, 3, 1), date(2026, 3, 31)),
    ]


def test_night_without_statements_saves_nothing() -> None:
    assert standing.check() is None
    assert not NightlyReconciliation.objects.exists()


def test_metrics_have_all_figures() -> None:
    day_with_a_difference()
    import_day(MONDAY + timedelta(days=1), 11_00)
    unproven = statement(MONDAY - timedelta(days=7), MONDAY - timedelta(days=7), 0, [movement("9")])
    import_statement(unproven.replace(b"=10.00", b"=12.00", 1), "odd.txt")
    standing.check()
    gauges = dict(line.rsplit(" ", 1) for line in database_metrics().decode().splitlines() if line[0] != "#")

    assert float(gauges["prihod_reconciliation_differences_overdue"]) == 1
    assert float(gauges["prihod_reconciliation_kopecks_overdue"]) == 10_00
    assert float(gauges["prihod_reconciliation_unexplained_kopecks"]) == 0
    assert float(gauges["prihod_bank_statements_unproven"]) == 1
    assert float(gauges["prihod_bank_balance_breaks"]) == 1
    assert float(gauges["prihod_bank_days_uncovered"]) > 0


@pytest.mark.parametrize(
    ("zone", "is_wrong"), [("UTC", True), ("Europe/Moscow", False), ("Etc/GMT-3", False)]
)
def test_doctor_finds_a_time_zone_that_moves_payments_at_night(
    zone: str, is_wrong: bool, settings: LazySettings
) -> None:
    settings.BANK_TIME_ZONE = ZoneInfo(zone)
    day_with_a_difference()

    found = [each for each in doctor._rows() if each.message.startswith("BANK_TIME_ZONE")]

    assert [bool(each.remedy) for each in found] == [is_wrong]
