"""Rules that detect problems of the reconciliation with bank statements; part of monitoring/problems.py."""

from collections.abc import Iterator

from django.conf import settings
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from core.admin import list_url
from ledger.money import format_rubles, group_digits
from monitoring.problem import Problem, Rule, Severity
from monitoring.stats import Stats
from statements.models import BankStatement, OwnAccount


def reconciliation_url() -> str:
    return reverse("admin:statements_reconciliation")


def _unexplained(stats: Stats) -> Iterator[Problem]:
    last = stats.reconciliation
    if last and last.unexplained:
        text = _("Ledger and bank differ by {amount} that no list explains")
        yield Problem(
            "unexplained_difference",
            Severity.CRITICAL,
            text.format(amount=format_rubles(last.unexplained)),
            _("run manage.py verify_ledger and manage.py reconcile, and send their output to the developers"),
            reconciliation_url(),
        )


def _balance_breaks(stats: Stats) -> Iterator[Problem]:
    if count := stats.balance_breaks:
        text = ngettext(
            "The balances of the bank statements break after {n} day",
            "The balances of the bank statements break after {n} days",
            count,
        )
        yield Problem(
            "balance_break",
            Severity.CRITICAL,
            text.format(n=group_digits(count)),
            _("download the statement of these days again and upload it; then ask the bank"),
            reconciliation_url(),
            magnitude=count,
        )


def _differences_overdue(stats: Stats) -> Iterator[Problem]:
    if count := stats.overdue_differences.count:
        text = ngettext(
            "{n} difference between ledger and bank is not settled after {days} d",
            "{n} differences between ledger and bank are not settled after {days} d",
            count,
        )
        yield Problem(
            "differences_overdue",
            Severity.WARNING,
            text.format(n=group_digits(count), days=settings.STATEMENT_ALERT_AFTER_DAYS),
            _("open the reconciliation in the admin: each list has the button that settles it"),
            reconciliation_url(),
            magnitude=count,
        )


def _unproven(stats: Stats) -> Iterator[Problem]:
    if count := stats.unproven_statements:
        text = ngettext("{n} bank statement is not proven", "{n} bank statements are not proven", count)
        yield Problem(
            "unproven_statements",
            Severity.WARNING,
            text.format(n=group_digits(count)),
            _("download these days again and upload the file, or accept the statement with a reason"),
            list_url(BankStatement),
            magnitude=count,
        )


def _uncovered_days(stats: Stats) -> Iterator[Problem]:
    if count := stats.uncovered_days:
        text = ngettext(
            "{n} working day has no proven bank statement",
            "{n} working days have no proven bank statement",
            count,
        )
        yield Problem(
            "uncovered_days",
            Severity.WARNING,
            text.format(n=group_digits(count)),
            _("upload the bank statements of these days: the account's calendar shows which"),
            list_url(OwnAccount),
            magnitude=count,
        )


RULES: list[Rule] = [_unexplained, _balance_breaks, _differences_overdue, _unproven, _uncovered_days]
