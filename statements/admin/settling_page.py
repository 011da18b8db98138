"""The confirmation page of an operator action on a bucket or on chosen rows of it, and its submission."""

import re
from collections.abc import Mapping
from typing import Any

from django.contrib import messages
from django.contrib.admin.sites import AdminSite
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet, Sum
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ingest import operator_actions
from ingest.admin.action_views import ReasonForm, submit_action, submitted_reason
from ingest.models import OperatorAction, Webhook
from ledger.money import format_rubles
from statements import actions, buckets
from statements.admin.bucket_buttons import BUTTONS, OFFERED, alternative_of, may_settle
from statements.admin.line_rows import line_rows, webhook_rows
from statements.admin.period_form import Choice, choose
from statements.models import Bucket, OwnAccount, StatementLine

Kind = OperatorAction.Kind
SHOWN_MAX = 20
ROWS_MAX = 1000  # in a URL
_KEY = re.compile(r"[0-9]{1,18}")
NOT_ELIGIBLE = gettext_lazy("Nothing to do: none of these lines is in the required state.")
_TEXTS: Mapping[Kind, tuple[str | Promise, str | Promise]] = {
    Kind.POST: (
        gettext_lazy("Post lines of bank statements"),
        gettext_lazy(
            "Lines that the bank may still notify, and those of unproven statements, are refused when their "
            "turn comes; nothing is posted twice."
        ),
    ),
    Kind.REPLAY: (
        gettext_lazy("Replay the webhooks of lines"),
        gettext_lazy("The webhooks are returned to the queue with all attempts. No payment is posted twice."),
    ),
    Kind.BY_LINE: (
        gettext_lazy("Replace payments by bank statements"),
        gettext_lazy(
            "Each payment is taken back in whole, and posted by the payer and the amount of its line."
        ),
    ),
    Kind.MATCH: (gettext_lazy("Confirm matches"), gettext_lazy("Each line and its webhook become a match.")),
    Kind.TAKE_BACK: (
        gettext_lazy("Reverse payments by bank statements"),
        gettext_lazy("Each payment is taken back in whole by a further entry."),
    ),
    Kind.EXCLUDE: (gettext_lazy("Exclude lines"), gettext_lazy("The lines are not posted.")),
    Kind.KEEP: (
        gettext_lazy("Keep differences"),
        gettext_lazy("Ledger and statement stay as they are; the difference is no longer listed as open."),
    ),
    Kind.UNMATCH: (
        gettext_lazy("Undo matches"),
        gettext_lazy(
            "The ledger stays as it is. Each line stands without a payment until it is matched again; a line "
            "that was matched automatically stays so until its decision is undone."
        ),
    ),
    Kind.REOPEN: (
        gettext_lazy("Undo decisions"),
        gettext_lazy(
            "The ledger stays as it is. The lines and payments are matched again, and decided anew."
        ),
    ),
}


def settling_page(request: HttpRequest, site: AdminSite, name: str) -> HttpResponse:
    """Ask for the reason; of a POST with one, create the action and run its first chunk."""
    choice, _form = choose(request.GET, list(OwnAccount.objects.order_by("number")))
    bucket_name = request.GET.get("bucket", "")
    if (name, bucket_name) not in OFFERED:  # their members are strings
        raise Http404
    kind, bucket = Kind(name), Bucket(bucket_name)
    if not may_settle(request.user, kind):
        raise PermissionDenied
    reason = submitted_reason(request)
    keys = _chosen(request.GET)
    if keys == set():
        messages.warning(request, _("Choose the rows first."))
        return redirect(f"{_back(choice, bucket)}#lines")
    rows = _rows(choice, bucket, keys)

    def confirm() -> HttpResponse:
        return _confirmation(request, site, kind, bucket, choice, keys or set())

    if reason is None:
        return confirm()

    def create(by: User, confirmed: str) -> OperatorAction:
        if kind == Kind.REPLAY:
            return operator_actions.create(kind, _failed(rows), by, reason, confirmed=confirmed)
        return actions.create(kind, rows, by, reason, confirmed)

    return submit_action(request, create, confirm, _back(choice, bucket), NOT_ELIGIBLE)


def _chosen(query: QueryDict) -> set[int] | None:
    """Return the keys of the rows that the URL names, None if it is of the whole bucket.

    A form of chosen rows has the field `chosen`: without any it is never of the whole bucket.
    """
    keys = {int(key) for key in query.getlist("row")[:ROWS_MAX] if _KEY.fullmatch(key)}
    return keys if keys or query.keys() & {"row", "chosen"} else None


def _rows(choice: Choice, bucket: Bucket, keys: set[int] | None) -> Any:
    is_of_webhooks = bucket in buckets.WEBHOOK_BUCKETS
    rows = (buckets.webhooks if is_of_webhooks else buckets.lines)(choice.scope, bucket)
    return rows if keys is None else rows.filter(pk__in=keys)


def _failed(lines: QuerySet[StatementLine]) -> list[int]:
    """Return the failed webhooks of the lines: those that were received need no replay."""
    found = Webhook.objects.failed().filter(matches__live=True, matches__line__in=lines)
    return list(found.values_list("pk", flat=True)[: operator_actions.WEBHOOKS_MAX])


def _back(choice: Choice, bucket: Bucket) -> str:
    return f"{reverse('admin:statements_reconciliation')}?{choice.query(bucket=bucket.value)}"


def _confirmation(
    request: HttpRequest, site: AdminSite, kind: Kind, bucket: Bucket, choice: Choice, keys: set[int]
) -> HttpResponse:
    title, effect = _TEXTS[kind]
    rows = _rows(choice, bucket, keys or None)
    if kind == Kind.REPLAY:
        failed = _failed(rows)
        digest = operator_actions.state_digest(kind, Webhook.objects.filter(id__in_literals=failed))
        eligible = rows.filter(matches__live=True, matches__webhook__status=Webhook.Status.FAILED)
    else:
        digest, eligible = actions.state_digest(kind, rows), actions.eligible(kind, rows)
    is_of_lines = eligible.model is StatementLine
    kopecks = eligible.order_by().aggregate(total=Sum("kopecks", default=0))["total"]
    count = eligible.order_by().count()
    first = eligible.order_by("pk").select_related("account" if is_of_lines else "webhook")[:SHOWN_MAX]
    context = {
        **site.each_context(request),
        "title": title,
        "opts": StatementLine._meta,
        "changelist_url": _back(choice, bucket),
        "form_url": request.get_full_path(),
        "eligible": count,
        "effect": effect,
        "sum": format_rubles(kopecks),
        "bucket": bucket,
        "in_background": count > actions.CHUNK_ITEMS,
        "digest": digest,
        "form": ReasonForm(request.POST if "reason" in request.POST else None),
        "not_eligible": NOT_ELIGIBLE,
        "first": list(first),
        "lines": list(line_rows(list(first), request.user)) if is_of_lines else [],
        "webhooks": [] if is_of_lines else list(webhook_rows(list(first))),
        "whole_bucket_url": f"{request.path}?{choice.query(bucket=bucket.value)}" if keys else "",
        "alternative": (
            alternative_of(request.user, bucket, choice, keys)
            if bucket in BUTTONS and BUTTONS[bucket][0] == kind
            else None
        ),
    }
    return TemplateResponse(request, "admin/statements/settle.html", context)
