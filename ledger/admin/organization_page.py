"""An organization's page in the admin: what it has, how it came to it, and a statement to take away."""

from datetime import date
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.core.validators import MaxValueValidator, MinValueValidator
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from core.admin import admin_link, format_datetime, list_link
from ledger import queries, statement, statement_csv, statement_xlsx
from ledger.admin import balance_chart
from ledger.download_slot import DownloadBusy, ExclusiveDownload
from ledger.models import BalanceLog, Organization, Payment
from ledger.money import format_rubles, group_digits
from ledger.statement import CHUNK_ENTRIES, PAGE_ENTRIES, Period, Statement

FILE_FORMATS = ("xlsx", "csv")  # of files that a statement is taken away in
DAY_MIN, DAY_MAX = date(1900, 1, 1), date(2999, 12, 31)


class StatementForm(forms.Form):
    """The period, in days of the viewer's time zone; either end may be left open."""

    first = forms.DateField(label=gettext_lazy("from"), required=False)
    last = forms.DateField(label=gettext_lazy("to"), required=False)
    before = forms.IntegerField(
        required=False, min_value=1, max_value=queries.SEQ_MAX
    )  # of the page of lines
    encoding = forms.ChoiceField(
        required=False,
        choices=[(statement_csv.UTF_8, "UTF-8"), (statement_csv.CP1251, "Windows-1251")],
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("first", "last"):
            field = self.fields[name]
            field.widget = forms.DateInput(format="%Y-%m-%d", attrs={"type": "date"})
            field.validators += [MinValueValidator(DAY_MIN), MaxValueValidator(DAY_MAX)]

    def clean(self) -> dict[str, Any]:
        told = super().clean() or {}
        first, last = told.get("first"), told.get("last")
        if first and last and last < first:
            raise forms.ValidationError(_("This period ends before it begins."))
        return told

    def period(self) -> Period:
        """Raises no error: without valid days it is all of the log."""
        told = self.cleaned_data if self.is_valid() else {}
        return Period(told.get("first"), told.get("last"), timezone.get_current_timezone())


def can_view_log(request: HttpRequest) -> bool:
    return request.user.has_perm("ledger.view_balancelog")


def context(request: HttpRequest, organization: Organization) -> dict[str, Any]:
    """What the template shows; of the log, and of what follows from it, only to who may see it."""
    lists = [(BalanceLog, _("balance log")), (Payment, _("payments"))]
    told: dict[str, Any] = {
        "organization": organization,
        "balance": format_rubles(organization.balance_kopecks),
        "log_lines": ngettext("{count} log line", "{count} log lines", organization.last_seq).format(
            count=group_digits(organization.last_seq)
        ),
        "records": [
            list_link(model, name, q=organization.inn)
            for model, name in lists
            if request.user.has_perm(f"ledger.view_{model._meta.model_name}")
        ],
    }
    if can_view_log(request):
        told |= _statement_context(request, organization)
    return told


def _statement_context(request: HttpRequest, organization: Organization) -> dict[str, Any]:
    form = StatementForm(request.GET)
    told = statement.make_statement(organization, form.period())
    before = form.cleaned_data.get("before") if form.is_valid() else None
    lines = told.page(before)
    links_to_payments = request.user.has_perm("ledger.view_payment")
    return {
        "form": form,
        "period_errors": [error for errors in form.errors.values() for error in errors],
        "statement": told,
        "figures": [
            (_("Opening balance"), format_rubles(told.opening)),
            (_("Turnover"), format_rubles(told.turnover)),
            (_("Closing balance"), format_rubles(told.closing)),
            (_("Lines"), group_digits(told.count)),
        ],
        "chart": chart(told) if told.closing else "",
        "lines": [_shown(line, is_linked=links_to_payments) for line in lines],
        "older": _query(told.period, lines[-1].seq) if lines and lines[-1].seq > told.oldest else None,
        "newer": _newer(told, lines),
        "download_urls": {
            kind: reverse(f"admin:ledger_organization_{kind}", args=[organization.pk])
            for kind in FILE_FORMATS
        },
        "is_full": not (told.period.first or told.period.last),
        "is_changing": told.period.last and not told.is_settled,
    }


def _newer(told: Statement, lines: list[BalanceLog]) -> str | None:
    if not lines or lines[0].seq >= told.newest:
        return None
    return _query(told.period, lines[0].seq + PAGE_ENTRIES + 1)


def _query(period: Period, before: int) -> str:
    told = {"first": period.first, "last": period.last, "before": before}
    return urlencode({name: value for name, value in told.items() if value})


def _shown(line: BalanceLog, *, is_linked: bool) -> dict[str, Any]:
    operation_id = line.payment.operation_id
    return {
        "line": line,
        "seq": group_digits(line.seq),
        "operation": admin_link(line.payment, operation_id) if is_linked else operation_id,
        "amount": format_rubles(line.amount_kopecks),
        "balance_after": format_rubles(line.balance_after_kopecks),
    }


def chart(told: Statement) -> SafeString:
    """The balance through the period, exact at each of its points."""
    opening = balance_chart.Point(told.begin, told.opening, format_rubles(told.opening))
    points = [
        balance_chart.Point(line.created_at, line.balance_after_kopecks, _tip(line))
        for line in told.chart_entries()
    ]
    return balance_chart.balance([opening, *points], max(told.end, told.begin))


def _tip(line: BalanceLog) -> str:
    return _("{moment}: {balance} after line {seq}").format(
        moment=format_datetime(line.created_at),
        balance=format_rubles(line.balance_after_kopecks),
        seq=line.seq,
    )


def download(request: HttpRequest, organization: Organization, kind: str) -> HttpResponseBase:
    """Return the statement as a file of this `kind`: csv or xlsx.

    Why there is none, such as a period that makes no sense, is said on the page.
    """
    form = StatementForm(request.GET)
    page = f"{reverse('admin:ledger_organization_change', args=[organization.pk])}?{request.GET.urlencode()}"
    if not form.is_valid():
        return redirect(page)
    told = statement.make_statement(organization, form.period())
    if kind == "xlsx" and told.count > statement_xlsx.ENTRIES_MAX:
        too_long = _(
            "An Excel file holds up to {lines} lines here. Choose a shorter period, or take the CSV."
        )
        messages.warning(request, too_long.format(lines=group_digits(statement_xlsx.ENTRIES_MAX)))
        return redirect(page)
    encoding = form.cleaned_data["encoding"] or statement_csv.UTF_8
    content_type = statement_xlsx.CONTENT_TYPE if kind == "xlsx" else f"text/csv; charset={encoding}"
    chunks = statement_xlsx.xlsx_chunks(told) if kind == "xlsx" else statement_csv.csv_chunks(told, encoding)
    if told.count > CHUNK_ENTRIES:  # so many are sent before a slow reader holds up anything
        try:
            chunks = ExclusiveDownload(chunks)
        except DownloadBusy:
            messages.warning(request, _("Another long statement is being downloaded. Try again in a minute."))
            return redirect(page)
    name = f"statement_{organization.inn}_{told.first_day:%Y-%m-%d}_{told.last_day:%Y-%m-%d}.{kind}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingHttpResponse(chunks, content_type=content_type, headers=headers)
