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
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ingest import acts
from ingest.exceptions import NoWebhooks
from ingest.models import ACT_REASON_CHARS_MAX, Act, ConflictingDelivery, Webhook
from ingest.replay import survey
from ledger import among  # noqa: F401 registers the look-up id__among
from ledger.browsing import link
from ledger.money import rubles_text

CHOSEN_MAX = 10_000  # webhooks by their keys; of those that match a filter, ACTED_ON_MAX
SHOWN_MAX = 20
_PRIMARY_KEY = re.compile(r"[0-9]{1,18}")
_PERMISSIONS = {
    Act.Kind.REPLAY: "ingest.replay_webhook",
    Act.Kind.DISMISS: "ingest.dismiss_webhook",
    Act.Kind.RESOLVE: "ingest.resolve_conflict",
}
KINDS = tuple(_PERMISSIONS)  # of acts about webhooks


def may_act(user: User | AnonymousUser, kind: Act.Kind) -> bool:
    return user.has_perms(["ingest.view_webhook", _PERMISSIONS[kind]])


def may(user: User | AnonymousUser) -> dict[str, bool]:
    """For templates: may_replay, may_dismiss, may_resolve."""
    return {f"may_{kind.value}": may_act(user, kind) for kind in KINDS}


def ready_for(kind: Act.Kind, webhooks: QuerySet[Webhook]) -> QuerySet[Webhook]:
    """Those of `webhooks` that the act would move at this moment."""
    if kind == Act.Kind.RESOLVE:
        # Kept deliveries are bounded in number, webhooks are not.
        open_conflicts = ConflictingDelivery.objects.filter(resolved_in=None).values_list(
            "webhook_id", flat=True
        )
        return webhooks.filter(id__among=list(open_conflicts))
    return webhooks.filter(status=Webhook.Status.FAILED)


def primary_keys(given: QueryDict) -> set[int]:
    return {int(word) for word in given.get("ids", "").split() if _PRIMARY_KEY.fullmatch(word)}


class ReasonForm(forms.Form):
    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        max_length=ACT_REASON_CHARS_MAX,
        widget=forms.Textarea({"rows": 2, "cols": 80, "autofocus": True}),
        help_text=gettext_lazy("It is kept with your name, and nobody can change it afterwards."),
    )


def ask_about(
    request: HttpRequest, site: AdminSite, kind: Act.Kind, webhook_ids: Collection[int]
) -> TemplateResponse | None:
    """Ask about the webhooks with these keys. None, with a message to the person, if they are too many."""
    if len(webhook_ids) > CHOSEN_MAX:
        text = _("More than {max} at once: tick all that match the filter instead.")
        messages.error(request, text.format(max=CHOSEN_MAX))
        return None
    chosen = Webhook.objects.filter(id__among=webhook_ids)
    states = {} if kind == Act.Kind.RESOLVE else survey(webhook_ids)
    states.pop(Webhook.Status.FAILED, None)
    page = reverse("admin:ingest_webhook_act", args=[kind.value])
    more = {"webhook_ids": " ".join(map(str, sorted(webhook_ids))), "action": page}
    names = dict(acts.Outcome.choices)
    left_alone = [(count, names[acts.Outcome(state)]) for state, count in states.items()]
    return _page(request, site, kind, ready_for(kind, chosen), {**more, "left_alone": left_alone})


def ask_about_all(
    request: HttpRequest, site: AdminSite, kind: Act.Kind, matching: QuerySet[Webhook]
) -> TemplateResponse:
    """Ask about those that match the list's filter, which stands in the address."""
    return _page(request, site, kind, ready_for(kind, matching), {"action": request.get_full_path()})


def _page(
    request: HttpRequest, site: AdminSite, kind: Act.Kind, ready: QuerySet[Webhook], more: dict[str, object]
) -> TemplateResponse:
    first = ready.defer("body").order_by("id")[:SHOWN_MAX]
    count = ready.order_by().count()
    context = {
        **site.each_context(request),
        "title": {
            Act.Kind.REPLAY: _("Replay webhooks"),
            Act.Kind.DISMISS: _("Dismiss webhooks"),
            Act.Kind.RESOLVE: _("Resolve conflicts"),
        }[kind],
        "opts": Webhook._meta,
        "kind": kind.value,
        "ready": min(count, acts.ACTED_ON_MAX),
        "beyond": max(count - acts.ACTED_ON_MAX, 0),
        "in_background": count > acts.CHUNK_WEBHOOKS,
        "first": [(link(w, w), rubles_text(w.amount_kopecks), w) for w in first],
        "form": ReasonForm(request.POST if "reason" in request.POST else None),
        **more,
    }
    return TemplateResponse(request, "admin/ingest/webhook/act.html", context)


def begin(
    request: HttpRequest, kind: Act.Kind, webhook_ids: Collection[int], reason: str
) -> HttpResponseRedirect:
    return _begun(request, lambda by: acts.begin(kind, webhook_ids, by, reason))


def begin_on_all(
    request: HttpRequest, kind: Act.Kind, matching: QuerySet[Webhook], reason: str
) -> HttpResponseRedirect:
    return _begun(request, lambda by: acts.begin_on_all(kind, ready_for(kind, matching), by, reason))


def _begun(request: HttpRequest, begin: Callable[[User], Act]) -> HttpResponseRedirect:
    """Begin the act, and carry out its first chunk, which of a small one is all; then show how far it is."""
    try:
        act = begin(cast(User, request.user))
    except NoWebhooks:
        messages.warning(request, _("There is nothing to do: no webhook of that kind is left."))
        return redirect("admin:ingest_webhook_changelist")
    with suppress(OperationalError):  # it is begun: somebody carries it out within seconds
        acts.carry_out(act.pk)
    return redirect("admin:ingest_act_change", act.pk)


def reason_in(request: HttpRequest) -> str | None:
    """What the person typed; None if it has still to be asked for."""
    form = ReasonForm(request.POST)
    if request.method == "POST" and "reason" in request.POST and form.is_valid():
        return str(form.cleaned_data["reason"])
    return None


def to_list(page: HttpResponse | None) -> HttpResponse:
    return page or redirect("admin:ingest_webhook_changelist")
