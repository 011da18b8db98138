"""The account and the days of a page of the reconciliation, from its URL."""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.db.models import F
from django.http import QueryDict
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from core.days import DAY_MAX, DAY_MIN
from core.period_form import PeriodForm
from statements.admin.amounts import group_account
from statements.buckets import Scope
from statements.coverage import Period
from statements.models import OwnAccount, StatementBalance, StatementLine
from statements.standing import today

PERIOD_DAYS_MAX = 366
SHOWN_BY_DEFAULT = timedelta(days=30)


class AccountPeriodForm(PeriodForm):
    """Account, first and last day; what is missing is completed from the newest statement."""

    field_order = ("account", "first", "last")
    account = forms.ModelChoiceField(
        OwnAccount.objects.order_by("number"),
        required=False,
        label=gettext_lazy("Account"),
        empty_label=gettext_lazy("all accounts"),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        account: Any = self.fields["account"]
        account.label_from_instance = lambda own: f"{group_account(own.number)} {own.bank}".strip()

    def clean(self) -> dict[str, Any]:
        fields = super().clean()
        first, last = fields.get("first"), fields.get("last")
        if first and last and (last - first).days >= PERIOD_DAYS_MAX:
            raise forms.ValidationError(_("Choose a period of at most a year."))
        return fields


@dataclass(frozen=True, slots=True)
class Choice:
    """What a page shows. `scope` is of all accounts if `account` is the only one: see buckets.Scope."""

    account: OwnAccount | None
    period: Period
    scope: Scope

    def query(self, **changed: object) -> str:
        """Return the query of the page's URL, with further parameters."""
        parameters = {
            "account": self.account.pk if self.account else None,
            "first": self.period.first,
            "last": self.period.last,
            **changed,
        }
        return urlencode({name: value for name, value in parameters.items() if value}, doseq=True)


def only_line(line: StatementLine) -> Choice:
    """Return the account and the day of the line."""
    period = Period(line.booked_on, line.booked_on)
    return Choice(line.account, period, Scope(line.account.number, period.first, period.last))


def choose(query: QueryDict, accounts: list[OwnAccount]) -> tuple[Choice, AccountPeriodForm]:
    """Return what the URL chooses, and the form that shows it; without a choice, the newest statement."""
    form = AccountPeriodForm(query if {"account", "first", "last"} & query.keys() else None)
    fields = form.cleaned_data if form.is_valid() else {}
    account = fields.get("account") or (accounts[0] if len(accounts) == 1 else None)
    period = _complete(fields.get("first"), fields.get("last"), account, today())
    number = account.number if account and len(accounts) > 1 else None
    choice = Choice(account, period, Scope(number, period.first, period.last))
    if not form.errors:
        form = AccountPeriodForm(initial={"account": account, "first": period.first, "last": period.last})
    return choice, form


def _complete(first: date | None, last: date | None, account: OwnAccount | None, today: date) -> Period:
    if first is None and last is None:
        return _newest_period(account) or Period(today.replace(day=1), today)
    if last is None:
        last = max(first or today, today)
    if first is None:
        first = max(last - SHOWN_BY_DEFAULT, DAY_MIN)
    return Period(max(first, last - timedelta(days=PERIOD_DAYS_MAX - 1)) if first < last else first, last)


def _newest_period(account: OwnAccount | None) -> Period | None:
    """Return the last days, at most a month, of the newest statement that says for which days it is."""
    balances = StatementBalance.objects.filter(
        first_day__lte=F("last_day"), last_day__range=(DAY_MIN, DAY_MAX)
    )
    if account:
        balances = balances.filter(account=account)
    newest = balances.order_by("-statement").first()
    if newest is None or newest.first_day is None or newest.last_day is None:
        return None
    return Period(max(newest.first_day, newest.last_day - SHOWN_BY_DEFAULT), newest.last_day)
