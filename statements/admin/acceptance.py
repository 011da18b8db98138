"""The confirmation page on which an operator takes an unproven bank statement for complete."""

from django.contrib.admin.sites import AdminSite
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from core.admin import Viewer
from ingest.admin.action_views import ReasonForm, submit_action, submitted_reason
from ingest.models import OperatorAction
from statements import actions
from statements.admin import verdicts
from statements.models import BankStatement

NOT_ELIGIBLE = gettext_lazy("Nothing to do: this bank statement is proven or accepted.")


def may_accept(viewer: Viewer) -> bool:
    return viewer.has_perm("statements.accept_statement")


def acceptance_page(request: HttpRequest, site: AdminSite, statement: BankStatement) -> HttpResponse:
    """Show what is not proven and ask for the reason; of a POST with one, accept the statement."""
    page = reverse("admin:statements_bankstatement_change", args=[statement.pk])
    reason = submitted_reason(request)

    def confirm() -> HttpResponse:
        context = {
            **site.each_context(request),
            "title": _("Accept the bank statement as complete"),
            "opts": BankStatement._meta,
            "changelist_url": page,
            "form_url": request.get_full_path(),
            "eligible": int(actions.is_acceptable(statement)),
            "form": ReasonForm(request.POST if "reason" in request.POST else None),
            "not_eligible": NOT_ELIGIBLE,
            "first": [statement],
            "result": verdicts.statement_context(statement),
        }
        return TemplateResponse(request, "admin/statements/accept.html", context)

    if reason is None:
        return confirm()

    def create(by: User, _confirmed: str) -> OperatorAction:
        return actions.accept(statement, by, reason)

    return submit_action(request, create, confirm, page, NOT_ELIGIBLE)
