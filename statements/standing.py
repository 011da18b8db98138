"""What of the reconciliation waits for people: for dashboard, alerts and metrics, by bounded queries."""

from calendar import monthrange
from dataclasses import dataclass
from datetime import date, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Count, QuerySet, Sum
from django.utils import timezone

from statements import buckets, coverage, day_totals
from statements.buckets import Scope
from statements.coverage import ONE_DAY, PROVEN, Period
from statements.covered_days import DayState, states
from statements.models import (
    BankStatement,
    NightlyReconciliation,
    OwnAccount,
    StatementBalance,
)

COUNT_MAX = 100_000
DAYS_CHECKED_MAX = 92  # older days without a statement are history
KEPT_MAX = 1000  # results of nights


@dataclass(frozen=True, slots=True)
class Differences:
    """Differences that no operator has settled: how many, up to COUNT_MAX for each side, and their sum."""

    count: int = 0
    kopecks: int = 0


def is_used() -> bool:
    """Return whether bank statements are reconciled here."""
    return StatementBalance.objects.exists()


def today() -> date:
    return timezone.now().astimezone(settings.STATEMENT_TIME_ZONE).date()


def overdue(day: date) -> Differences:
    """Return the differences that are older than STATEMENT_ALERT_AFTER_DAYS on `day`."""
    return unsettled(Scope(last=day - timedelta(days=settings.STATEMENT_ALERT_AFTER_DAYS + 1)))


def unsettled(scope: Scope) -> Differences:
    """Return the differences that no operator has settled."""
    found = buckets.lines(scope, *buckets.WAITING_LINES), buckets.webhooks(scope, *buckets.WAITING_WEBHOOKS)
    totals = [
        rows.order_by()[:COUNT_MAX].aggregate(count=Count("pk"), sum=Sum("kopecks", default=0))
        for rows in found
    ]
    return Differences(sum(total["count"] for total in totals), sum(total["sum"] for total in totals))


def unproven() -> QuerySet[BankStatement]:
    """Return the statements that prove nothing: neither proven, nor accepted, nor replaced."""
    open_ones = BankStatement.objects.exclude(verdict=BankStatement.Verdict.OK).filter(accepted_by=None)
    balances = StatementBalance.objects.exclude(PROVEN).filter(statement__in=open_ones)
    covered = {
        account.pk: coverage.covered_periods(account)
        for account in OwnAccount.objects.filter(balances__in=balances).distinct()
    }
    keys = {
        statement
        for statement, account, first, last in balances.values_list(
            "statement_id", "account_id", "first_day", "last_day"
        )
        if not (first and last) or not _is_within(Period(first, last), covered[account])
    }
    return open_ones.filter(pk__in=keys)


def _is_within(period: Period, covered: list[Period]) -> bool:
    return any(each.first <= period.first and period.last <= each.last for each in covered)


def uncovered_days(day: date) -> int:
    """Count the working days of all accounts that lack a proven statement on `day`.

    Of the last DAYS_CHECKED_MAX days; a day lacks it once it is older than STATEMENT_ALERT_AFTER_DAYS.
    """
    last = day - timedelta(days=settings.STATEMENT_ALERT_AFTER_DAYS + 1)
    period = Period(last - timedelta(days=DAYS_CHECKED_MAX - 1), last)
    lacking = {DayState.MISSING, DayState.UNPROVEN, DayState.UNFINISHED}
    return sum(
        sum(state in lacking for state in states(account, period, day).values())
        for account in OwnAccount.objects.all()
    )


def breaks() -> int:
    """Count the days whose closing balance is not the opening balance of the next (I10)."""
    return sum(1 for _ in coverage.breaks())


def last_night() -> NightlyReconciliation | None:
    return NightlyReconciliation.objects.order_by("-pk").first()


def check() -> NightlyReconciliation | None:
    """Save whether everything up to yesterday is explained to the kopeck (I7); nothing without statements.

    Totals of days that are wrong, which pages have shown, are not explained either.
    """
    if not is_used():
        return None
    yesterday = today() - ONE_DAY
    wrong_totals = day_totals.repair()
    unexplained = _unexplained(yesterday) or wrong_totals
    waiting = unsettled(Scope(last=yesterday))
    saved = NightlyReconciliation.objects.create(
        unexplained=unexplained, differences=waiting.count, kopecks=waiting.kopecks
    )
    NightlyReconciliation.objects.filter(pk__lte=saved.pk - KEPT_MAX).delete()
    return saved


def _unexplained(last: date) -> int:
    """Return what no bucket explains up to `last`, in kopecks.

    The sum of the months, because a statement over several million lines would exceed read_timeout. Each is
    read under the locks of all own accounts: no matching moves a line or webhook while they are summed.
    """
    unexplained, after = 0, date.min
    while first := _first_day(Scope(first=after, last=last)):
        month = Scope(first=first, last=min(_end_of_month(first), last))
        with transaction.atomic():
            list(OwnAccount.objects.select_for_update().order_by("pk"))
            unexplained += buckets.identity(month).unexplained
        after = _end_of_month(first) + ONE_DAY
    return unexplained


def _first_day(scope: Scope) -> date | None:
    """Return the first day in `scope` of any bucket, each by the beginning of its range of an index."""
    of_lines = (
        buckets.lines(scope, bucket).order_by("booked_on").values_list("booked_on", flat=True)[:1]
        for bucket in buckets.LINE_BUCKETS
    )
    of_webhooks = (
        buckets.webhooks(scope, bucket).order_by("day").values_list("day", flat=True)[:1]
        for bucket in buckets.WEBHOOK_BUCKETS
    )
    return min((day for found in (*of_lines, *of_webhooks) for day in found), default=None)


def _end_of_month(day: date) -> date:
    return day.replace(day=monthrange(day.year, day.month)[1])
