"""The admin page of an organization: its balance, its log, and a period's statement to download."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from core.admin import admin_link, format_datetime, list_link
from core.period_form import PeriodForm
from ledger import queries, statement_csv, statement_xlsx
from ledger.admin import balance_chart
from ledger.download_slot import DownloadBusy, ExclusiveDownload
from ledger.models import BalanceLog, Organization, Payment
from ledger.money import format_rubles, group_digits
from ledger.statement import CHUNK_ENTRIES, PAGE_ENTRIES, Period, Statement, make_statement

FILE_FORMATS = ("xlsx", "csv")


class StatementForm(PeriodForm):
    """The period, in days of the viewer's time zone. Either end may be left open."""

    before = forms.IntegerField(  # cursor of the table of entries
        required=False, min_value=1, max_value=queries.SEQ_MAX
    )
    encoding = forms.ChoiceField(
        required=False,
        choices=[(statement_csv.UTF_8, "UTF-8"), (statement_csv.CP1251, "Windows-1251")],
    )

    def period(self) -> Period:
        """Return the period, or the whole log if the form is invalid."""
        fields = self.cleaned_data if self.is_valid() else {}
        return Period(fields.get("first"), fields.get("last"), timezone.get_current_timezone())


def can_view_log(request: HttpRequest) -> bool:
    return request.user.has_perm("ledger.view_balancelog")


def context(request: HttpRequest, organization: Organization) -> dict[str, Any]:
    """Return the template's context; the log and its statement only for a viewer with permission."""
    lists = [(BalanceLog, _("balance log")), (Payment, _("payments"))]
    fields: dict[str, Any] = {
        "organization": organization,
        "balance": format_rubles(organization.balance_kopecks),
        "log_entries": ngettext("{count} log entry", "{count} log entries", organization.last_seq).format(
            count=group_digits(organization.last_seq)
        ),
        "lists": [
            list_link(model, name, q=organization.inn)
            for model, name in lists
            if request.user.has_perm(f"ledger.view_{model._meta.model_name}")
        ],
    }
    if can_view_log(request):
        fields |= _statement_context(request, organization)
    return fields


def _statement_context(request: HttpRequest, organization: Organization) -> dict[str, Any]:
    form = StatementForm(request.GET)
    statement = make_statement(organization, form.period())
    before = form.cleaned_data.get("before") if form.is_valid() else None
    entries = statement.page(before)
    links_to_payments = request.user.has_perm("ledger.view_payment")
    has_older = entries and entries[-1].seq > statement.first_seq
    return {
        "form": form,
        "period_errors": [error for errors in form.errors.values() for error in errors],
        "statement": statement,
        "totals": [
            (_("Opening balance"), format_rubles(statement.opening)),
            *(_credited_and_reversed(statement) if statement.reversed else ()),
            (_("Turnover"), format_rubles(statement.turnover)),
            (_("Closing balance"), format_rubles(statement.closing)),
            (_("Entries"), group_digits(statement.count)),
        ],
        "chart": chart(statement) if statement.count or statement.closing else "",
        "entries": [_entry_context(entry, is_linked=links_to_payments) for entry in entries],
        "older": _query(statement.period, entries[-1].seq) if has_older else None,
        "newer": _newer(statement, entries),
        "download_urls": {
            file_format: reverse(f"admin:ledger_organization_{file_format}", args=[organization.pk])
            for file_format in FILE_FORMATS
        },
        "is_full": not (statement.period.first or statement.period.last),
        "is_changing": statement.period.last and not statement.is_settled,
    }


def _credited_and_reversed(statement: Statement) -> Iterator[tuple[str, str]]:
    yield _("Credited"), format_rubles(statement.credited)
    yield _("Reversed"), format_rubles(-statement.reversed)


def _newer(statement: Statement, entries: list[BalanceLog]) -> str | None:
    if not entries or entries[0].seq >= statement.last_seq:
        return None
    return _query(statement.period, entries[0].seq + PAGE_ENTRIES + 1)


def _query(period: Period, before: int) -> str:
    parameters = {"first": period.first, "last": period.last, "before": before}
    return urlencode({name: value for name, value in parameters.items() if value})


def _entry_context(entry: BalanceLog, *, is_linked: bool) -> dict[str, Any]:
    payment, reversed_payment = entry.payment, entry.payment.reverses
    return {
        "entry": entry,
        "seq": group_digits(entry.seq),
        "operation": _operation(payment, is_linked=is_linked),
        "reversed": reversed_payment and _operation(reversed_payment, is_linked=is_linked),
        "amount": format_rubles(entry.amount_kopecks),
        "balance_after": format_rubles(entry.balance_after_kopecks),
    }


def _operation(payment: Payment, *, is_linked: bool) -> str:
    return admin_link(payment, payment.operation_id) if is_linked else str(payment.operation_id)


def chart(statement: Statement) -> SafeString:
    """Return the SVG of the balance through the period, exact at each of its points."""
    opening = balance_chart.Point(statement.begin, statement.opening, format_rubles(statement.opening))
    points = [
        balance_chart.Point(entry.created_at, entry.balance_after_kopecks, _tooltip(entry))
        for entry in statement.chart_entries()
    ]
    return balance_chart.render([opening, *points], max(statement.end, statement.begin))


def _tooltip(entry: BalanceLog) -> str:
    return _("{moment}: {balance} after entry {seq}").format(
        moment=format_datetime(entry.created_at),
        balance=format_rubles(entry.balance_after_kopecks),
        seq=entry.seq,
    )


def download(request: HttpRequest, organization: Organization, file_format: str) -> HttpResponseBase:
    """Stream the statement as a file. `file_format` is csv or xlsx.

    An invalid period, a statement too long for .xlsx or a busy download slot redirects to the organization's
    page with a message.
    """
    form = StatementForm(request.GET)
    page = f"{reverse('admin:ledger_organization_change', args=[organization.pk])}?{request.GET.urlencode()}"
    if not form.is_valid():
        return redirect(page)
    statement = make_statement(organization, form.period())
    if file_format == "xlsx" and statement.count > statement_xlsx.ENTRIES_MAX:
        too_long = _(
            "An Excel file holds up to {entries} entries here. Choose a shorter period, or download the CSV."
        )
        messages.warning(request, too_long.format(entries=group_digits(statement_xlsx.ENTRIES_MAX)))
        return redirect(page)
    if file_format == "xlsx":
        content_type, chunks = statement_xlsx.CONTENT_TYPE, statement_xlsx.xlsx_chunks(statement)
    else:
        encoding = form.cleaned_data["encoding"] or statement_csv.UTF_8
        content_type = f"text/csv; charset={encoding}"
        chunks = statement_csv.csv_chunks(statement, encoding)
    if statement.count > CHUNK_ENTRIES:  # fewer are sent in one chunk, which a slow client can't stretch
        try:
            chunks = ExclusiveDownload(chunks)
        except DownloadBusy:
            messages.warning(request, _("Another long statement is being downloaded. Try again in a minute."))
            return redirect(page)
    days = f"{statement.first_day:%Y-%m-%d}_{statement.last_day:%Y-%m-%d}"
    name = f"statement_{organization.inn}_{days}.{file_format}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingHttpResponse(chunks, content_type=content_type, headers=headers)
