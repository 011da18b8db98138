"""The download of a period's postings as 1CClientBankExchange."""

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _

from ledger.statement import Period
from statements.admin.period_form import choose
from statements.export_1c import ExportTooLarge, export
from statements.models import OwnAccount


def download(request: HttpRequest) -> HttpResponse:
    """Send the file of the account and the days that the URL chooses; with `inn`, of that organization."""
    accounts = list(OwnAccount.objects.order_by("number"))
    choice, _form = choose(request.GET, accounts)
    inn = request.GET.get("inn", "")
    if not accounts:
        messages.warning(request, _("Add an own account first: the file names it."))
        return redirect("admin:statements_ownaccount_changelist")
    period = Period(choice.period.first, choice.period.last, settings.STATEMENT_TIME_ZONE)
    try:
        body = export(choice.account or accounts[0], period, inn or None)
    except ExportTooLarge:
        messages.warning(request, _("The file would be too large for 1C. Choose a shorter period."))
        return redirect("admin:statements_reconciliation")
    name = f"prihod_{period.first:%Y-%m-%d}_{period.last:%Y-%m-%d}.txt"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return HttpResponse(body, content_type="text/plain; charset=windows-1251", headers=headers)
