"""The confirmation page of an operator action, which asks for its reason, and its submission."""

import re
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import cast

from django import forms
from django.contrib import messages
from django.contrib.admin.sites import AdminSite
from django.contrib.auth.models import AnonymousUser, User
from django.db import OperationalError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from core.admin import admin_link, list_url
from ingest import correction_actions, operator_actions, suspected_duplicates
from ingest.admin import correction_previews
from ingest.admin.pair_previews import pair_previews
from ingest.exceptions import NothingToDo, StaleConfirmation
from ingest.models import ACTION_REASON_CHARS_MAX, OperatorAction, SuspectedDuplicate, Webhook
from ingest.replay import count_by_status
from ledger.inn import PATTERN as INN_PATTERN
from ledger.inn import is_inn
from ledger.models import UnassignedPayment
from ledger.money import format_rubles

SELECTED_MAX = 10_000  # webhooks by their keys; of those that match a filter, operator_actions.WEBHOOKS_MAX
SHOWN_MAX = 20
CHANGELIST = "admin:ingest_webhook_changelist"
PAIRS = "admin:ingest_suspectedduplicate_changelist"
Kind = OperatorAction.Kind
_PRIMARY_KEY = re.compile(r"[0-9]{1,18}")
_PERMISSIONS = {
    Kind.REPLAY: "ingest.replay_webhook",
    Kind.DISMISS: "ingest.dismiss_webhook",
    Kind.RESOLVE: "ingest.resolve_conflict",
    **dict.fromkeys(correction_actions.KINDS, "ingest.correct_payment"),
    **dict.fromkeys(suspected_duplicates.KINDS, "ingest.decide_duplicate"),
}
KINDS = tuple(_PERMISSIONS)  # of actions on webhooks
_TITLES = {
    Kind.REPLAY: gettext_lazy("Replay webhooks"),
    Kind.DISMISS: gettext_lazy("Dismiss webhooks"),
    Kind.RESOLVE: gettext_lazy("Resolve conflicts"),
    Kind.REVERSE: gettext_lazy("Reverse payments"),
    Kind.REPLACE: gettext_lazy("Reverse payments and replace them"),
    Kind.ASSIGN: gettext_lazy("Assign payments to an organization"),
    Kind.UNASSIGN: gettext_lazy("Return payments to suspense"),
    Kind.RESTORE: gettext_lazy("Post reversed payments again"),
    Kind.CLEAR: gettext_lazy("Two payments, no duplicate"),
    Kind.CONFIRM: gettext_lazy("Confirm duplicates"),
}
NOT_POSSIBLE = gettext_lazy("Nothing to do: {refusal}.")
NOT_ELIGIBLE = gettext_lazy("Nothing to do: none of these webhooks is in the required state.")


def has_action_permission(user: User | AnonymousUser, kind: Kind) -> bool:
    return user.has_perms(["ingest.view_webhook", _PERMISSIONS[kind]])


def permission_context(user: User | AnonymousUser) -> dict[str, bool]:
    """Return the template context can_replay, can_dismiss, can_resolve, can_reverse and so on."""
    return {f"can_{kind.value}": has_action_permission(user, kind) for kind in KINDS}


def submitted_ids(query: QueryDict) -> set[int]:
    """Return the primary keys in the field `ids`, separated by spaces; ignore what is none."""
    return {int(word) for word in query.get("ids", "").split() if _PRIMARY_KEY.fullmatch(word)}


def _changelist(kind: Kind) -> str:
    return PAIRS if kind in suspected_duplicates.KINDS else CHANGELIST


class ReasonForm(forms.Form):
    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        max_length=ACTION_REASON_CHARS_MAX,
        widget=forms.Textarea({"rows": 2, "cols": 80, "autofocus": True}),
        help_text=gettext_lazy("Recorded in the audit trail under your name. It cannot be changed later."),
    )


class AssignmentForm(ReasonForm):
    inn = forms.RegexField(INN_PATTERN, label=gettext_lazy("INN"), required=False)


def submitted_inn(request: HttpRequest) -> str:
    """Return the INN in the request, of an assignment; empty if it is none."""
    inn = (request.POST.get("inn") or request.GET.get("inn") or "").strip()
    return inn if is_inn(inn) else ""


def is_previewed(request: HttpRequest, kind: Kind) -> bool:
    """Return whether the page that was submitted showed what will happen: of an assignment, with this INN."""
    return kind != Kind.ASSIGN or request.POST.get("previewed_inn") == submitted_inn(request) != ""


def submitted_reason(request: HttpRequest) -> str | None:
    """Return the valid reason of a POST, else None."""
    form = ReasonForm(request.POST)
    if request.method == "POST" and "reason" in request.POST and form.is_valid():
        return str(form.cleaned_data["reason"])
    return None


def confirm(
    request: HttpRequest, site: AdminSite, kind: Kind, webhook_ids: Collection[int]
) -> TemplateResponse | None:
    """Return the confirmation page for these webhooks; None, with an error message, if they are too many."""
    if len(webhook_ids) > SELECTED_MAX:
        text = _("More than {max} selected. Use the list’s “Select all” link instead.")
        messages.error(request, text.format(max=SELECTED_MAX))
        return None
    selected = Webhook.objects.filter(id__in_literals=webhook_ids)
    counts = count_by_status(webhook_ids) if kind in {Kind.REPLAY, Kind.DISMISS} else {}
    counts.pop(Webhook.Status.FAILED, None)
    labels = dict(operator_actions.Outcome.choices)
    extra_context = {
        "ids": " ".join(map(str, sorted(webhook_ids))),
        "form_url": reverse("admin:ingest_webhook_action", args=[kind.value]),
        "skipped": [(count, labels[operator_actions.Outcome(status)]) for status, count in counts.items()],
    }
    return _confirmation(request, site, kind, selected, extra_context)


def confirm_all(
    request: HttpRequest, site: AdminSite, kind: Kind, matching: QuerySet[Webhook]
) -> TemplateResponse:
    """Return the confirmation page for those that match the changelist filter in the request's URL."""
    return _confirmation(request, site, kind, matching, {"form_url": request.get_full_path()})


def _confirmation(
    request: HttpRequest,
    site: AdminSite,
    kind: Kind,
    webhooks: QuerySet[Webhook],
    extra_context: Mapping[str, object],
) -> TemplateResponse:
    # The digest first: a change before the next query then makes it stale, and the page is shown again.
    digest = operator_actions.state_digest(kind, webhooks)
    eligible = operator_actions.eligible(kind, webhooks)
    first = eligible.defer("body").order_by("id")[:SHOWN_MAX]
    count = eligible.order_by().count()
    context = {
        **site.each_context(request),
        "title": _TITLES[kind],
        "opts": (SuspectedDuplicate if kind in suspected_duplicates.KINDS else Webhook)._meta,
        "changelist_url": reverse(_changelist(kind)),
        "kind": kind.value,
        "eligible": min(count, operator_actions.WEBHOOKS_MAX),
        "over_limit": max(count - operator_actions.WEBHOOKS_MAX, 0),
        "in_background": count > operator_actions.CHUNK_WEBHOOKS,
        "digest": digest,
        "first": [(admin_link(each, each), format_rubles(each.amount_kopecks), each) for each in first],
        "inn": submitted_inn(request),
        "pairs": pair_previews(kind, first) if kind in suspected_duplicates.KINDS else [],
        "form": (AssignmentForm if kind == Kind.ASSIGN else ReasonForm)(
            request.POST if "reason" in request.POST else None, initial={"inn": submitted_inn(request)}
        ),
        "not_eligible": NOT_ELIGIBLE,
        **extra_context,
    }
    if kind in correction_actions.KINDS:
        context |= _correction_context(kind, list(first), count, submitted_inn(request))
    return TemplateResponse(request, "admin/ingest/webhook/confirm_action.html", context)


def _correction_context(kind: Kind, first: list[Webhook], count: int, inn: str) -> dict[str, object]:
    """Return the previews; without any that is possible, why, and no form."""
    previews = correction_previews.previews(kind, first, inn)
    context: dict[str, object] = {
        "is_correction": True,
        "previews": previews,
        "submit_label": correction_previews.submit_label(kind, count, inn),
    }
    if kind == Kind.ASSIGN:
        context |= {"opts": UnassignedPayment._meta, "changelist_url": list_url(UnassignedPayment)}
    if previews and count == len(previews) and not any(each.entries for each in previews):
        refusal = previews[0].refusal
        context |= {"eligible": 0, "not_eligible": NOT_POSSIBLE.format(refusal=refusal)}
    return context


def submit(
    request: HttpRequest, site: AdminSite, kind: Kind, webhook_ids: Collection[int], reason: str
) -> HttpResponse:
    def create(by: User, confirmed: str) -> OperatorAction:
        inn = submitted_inn(request) if kind == Kind.ASSIGN else ""
        action = OperatorAction(kind=kind, by=by, by_name=by.get_username(), inn=inn)
        return operator_actions.create_for_ids(action, webhook_ids, reason, confirmed)

    def confirm_again() -> HttpResponse:
        return or_changelist(confirm(request, site, kind, webhook_ids))

    return submit_action(request, create, confirm_again, _changelist(kind), NOT_ELIGIBLE)


def submit_all(
    request: HttpRequest, site: AdminSite, kind: Kind, matching: QuerySet[Webhook], reason: str
) -> HttpResponse:
    def create(by: User, confirmed: str) -> OperatorAction:
        return operator_actions.create_for_queryset(kind, matching, by, reason, confirmed)

    def confirm_again() -> HttpResponse:
        return confirm_all(request, site, kind, matching)

    return submit_action(request, create, confirm_again, CHANGELIST, NOT_ELIGIBLE)


def submit_action(
    request: HttpRequest,
    create: Callable[[User, str], OperatorAction],
    confirm_again: Callable[[], HttpResponse],
    changelist: str,
    not_eligible: str | Promise,
) -> HttpResponse:
    """Create the action, run its first chunk, which of a small one is all, and redirect to its page.

    Redirect to `changelist` with the message `not_eligible` if there is nothing to do; ask again if the
    state has changed since the confirmation page was shown.
    """
    try:
        action = create(cast(User, request.user), request.POST.get("digest", ""))
    except NothingToDo:
        messages.warning(request, str(not_eligible))
        return redirect(changelist)
    except StaleConfirmation:
        text = _("Nothing was done: the data changed after this page was shown. Check it and confirm again.")
        messages.warning(request, text)
        return confirm_again()
    with suppress(OperationalError):  # it is committed: a worker or the sweeper runs it within seconds
        operator_actions.run_chunk(action.pk)
    return redirect("admin:ingest_operatoraction_change", action.pk)


def or_changelist(page: HttpResponse | None) -> HttpResponse:
    return page or redirect(CHANGELIST)
