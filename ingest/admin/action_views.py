"""The page that says what an act will do and asks for its reason; and beginning it."""

import re
from collections.abc import Callable, Collection
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
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from core.admin import admin_link
from core.db import lookups  # noqa: F401 registers the look-up id__in_literals
from ingest import operator_actions
from ingest.exceptions import NothingToDo, StaleConfirmation
from ingest.models import ACTION_REASON_CHARS_MAX, OperatorAction, Webhook
from ingest.replay import count_by_status
from ledger.money import format_rubles

SELECTED_MAX = 10_000  # webhooks by their keys; of those that match a filter, ACTED_ON_MAX
SHOWN_MAX = 20
_PRIMARY_KEY = re.compile(r"[0-9]{1,18}")
_PERMISSIONS = {
    OperatorAction.Kind.REPLAY: "ingest.replay_webhook",
    OperatorAction.Kind.DISMISS: "ingest.dismiss_webhook",
    OperatorAction.Kind.RESOLVE: "ingest.resolve_conflict",
}
KINDS = tuple(_PERMISSIONS)  # of acts about webhooks


def has_action_permission(user: User | AnonymousUser, kind: OperatorAction.Kind) -> bool:
    return user.has_perms(["ingest.view_webhook", _PERMISSIONS[kind]])


def permission_context(user: User | AnonymousUser) -> dict[str, bool]:
    """For templates: may_replay, may_dismiss, may_resolve."""
    return {f"may_{kind.value}": has_action_permission(user, kind) for kind in KINDS}


def submitted_ids(given: QueryDict) -> set[int]:
    return {int(word) for word in given.get("ids", "").split() if _PRIMARY_KEY.fullmatch(word)}


class ReasonForm(forms.Form):
    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        max_length=ACTION_REASON_CHARS_MAX,
        widget=forms.Textarea({"rows": 2, "cols": 80, "autofocus": True}),
        help_text=gettext_lazy("It is kept with your name, and nobody can change it afterwards."),
    )


def confirm(
    request: HttpRequest, site: AdminSite, kind: OperatorAction.Kind, webhook_ids: Collection[int]
) -> TemplateResponse | None:
    """Ask about the webhooks with these keys. None, with a message to the person, if they are too many."""
    if len(webhook_ids) > SELECTED_MAX:
        text = _("More than {max} at once: tick all that match the filter instead.")
        messages.error(request, text.format(max=SELECTED_MAX))
        return None
    chosen = Webhook.objects.filter(id__in_literals=webhook_ids)
    states = {} if kind == OperatorAction.Kind.RESOLVE else count_by_status(webhook_ids)
    states.pop(Webhook.Status.FAILED, None)
    page = reverse("admin:ingest_webhook_action", args=[kind.value])
    more = {"webhook_ids": " ".join(map(str, sorted(webhook_ids))), "action": page}
    names = dict(operator_actions.Outcome.choices)
    left_alone = [(count, names[operator_actions.Outcome(state)]) for state, count in states.items()]
    return _page(request, site, kind, chosen, {**more, "left_alone": left_alone})


def confirm_all(
    request: HttpRequest, site: AdminSite, kind: OperatorAction.Kind, matching: QuerySet[Webhook]
) -> TemplateResponse:
    """Ask about those that match the list's filter, which stands in the address."""
    return _page(request, site, kind, matching, {"action": request.get_full_path()})


def _page(
    request: HttpRequest,
    site: AdminSite,
    kind: OperatorAction.Kind,
    chosen: QuerySet[Webhook],
    more: dict[str, object],
) -> TemplateResponse:
    shown = operator_actions.state_digest(
        kind, chosen
    )  # first: what changes before the next query is asked about again
    ready = operator_actions.eligible(kind, chosen)
    first = ready.defer("body").order_by("id")[:SHOWN_MAX]
    count = ready.order_by().count()
    context = {
        **site.each_context(request),
        "title": {
            OperatorAction.Kind.REPLAY: _("Replay webhooks"),
            OperatorAction.Kind.DISMISS: _("Dismiss webhooks"),
            OperatorAction.Kind.RESOLVE: _("Resolve conflicts"),
        }[kind],
        "opts": Webhook._meta,
        "kind": kind.value,
        "ready": min(count, operator_actions.WEBHOOKS_MAX),
        "beyond": max(count - operator_actions.WEBHOOKS_MAX, 0),
        "in_background": count > operator_actions.CHUNK_WEBHOOKS,
        "shown": shown,
        "first": [(admin_link(w, w), format_rubles(w.amount_kopecks), w) for w in first],
        "form": ReasonForm(request.POST if "reason" in request.POST else None),
        **more,
    }
    return TemplateResponse(request, "admin/ingest/webhook/confirm_action.html", context)


def submit(
    request: HttpRequest,
    site: AdminSite,
    kind: OperatorAction.Kind,
    webhook_ids: Collection[int],
    reason: str,
) -> HttpResponse:
    def begin_as(by: User, shown: str) -> OperatorAction:
        return operator_actions.create(kind, webhook_ids, by, reason, shown=shown)

    return _submit(request, begin_as, lambda: confirm(request, site, kind, webhook_ids))


def submit_all(
    request: HttpRequest, site: AdminSite, kind: OperatorAction.Kind, matching: QuerySet[Webhook], reason: str
) -> HttpResponse:
    def begin_as(by: User, shown: str) -> OperatorAction:
        return operator_actions.create_for_queryset(kind, matching, by, reason, shown)

    return _submit(request, begin_as, lambda: confirm_all(request, site, kind, matching))


def _submit(
    request: HttpRequest,
    begin: Callable[[User, str], OperatorAction],
    ask_again: Callable[[], HttpResponse | None],
) -> HttpResponse:
    """Begin the act, and carry out its first chunk, which of a small one is all; then show how far it is."""
    try:
        action = begin(cast(User, request.user), request.POST.get("shown", ""))
    except NothingToDo:
        messages.warning(request, _("There is nothing to do: no webhook of that kind is left."))
        return redirect("admin:ingest_webhook_changelist")
    except StaleConfirmation:
        messages.warning(request, _("Nothing is done yet: this has changed since the page was shown."))
        return or_changelist(ask_again())
    with suppress(OperationalError):  # it is begun: somebody carries it out within seconds
        operator_actions.run_chunk(action.pk)
    return redirect("admin:ingest_operatoraction_change", action.pk)


def submitted_reason(request: HttpRequest) -> str | None:
    """What the person typed; None if it has still to be asked for."""
    form = ReasonForm(request.POST)
    if request.method == "POST" and "reason" in request.POST and form.is_valid():
        return str(form.cleaned_data["reason"])
    return None


def or_changelist(page: HttpResponse | None) -> HttpResponse:
    return page or redirect("admin:ingest_webhook_changelist")
