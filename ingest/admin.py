"""The inbox in the admin: what the bank told us, what became of it, and the button to try it again."""

import re
from collections.abc import Collection
from typing import Any, cast

import msgspec
from django.contrib import admin, messages
from django.contrib.admin.sites import AdminSite
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import PermissionDenied
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.html import format_html, format_html_join
from django.utils.text import Truncator

from ingest.finding import banks_ids, operations_called
from ingest.models import ConflictingDelivery, IgnoredDelivery, RejectedDelivery, Verification, Webhook
from ingest.replay import Replayed, replay, survey
from ingest.signing import claimed_payload
from ledger.browsing import ReadOnlyAdmin, link, list_link
from ledger.models import Payment
from ledger.money import rubles_text
from ledger.operation_id import as_operation_id

REPLAYED_AT_ONCE_MAX = 10_000  # in one request; the replay command has no such limit
SHOWN_MAX = 20  # of a list inside a page
ERROR_CHARS_SHOWN = 80
_PRIMARY_KEY = re.compile(r"[0-9]{1,18}")


Delivered = Webhook | RejectedDelivery | IgnoredDelivery | ConflictingDelivery


def may_replay(user: User | AnonymousUser) -> bool:
    return user.has_perms(["ingest.view_webhook", "ingest.replay_webhook"])


def ask_to_replay(
    request: HttpRequest, site: AdminSite, webhook_ids: Collection[int]
) -> TemplateResponse | None:
    """The page that asks whether to replay the failed ones of `webhook_ids`; its button posts to replay_view.

    None, with a message to the person, if they are too many for one request.
    """
    if len(webhook_ids) > REPLAYED_AT_ONCE_MAX:
        messages.error(request, f"More than {REPLAYED_AT_ONCE_MAX} at once: use manage.py replay --failed.")
        return None
    states = survey(webhook_ids)
    failed = Webhook.objects.failed().filter(id__in=webhook_ids).order_by("id")
    context = {
        **site.each_context(request),
        "title": "Replay webhooks",
        "opts": Webhook._meta,
        "replayable": states.pop(Webhook.Status.FAILED, 0),
        "left_alone": Replayed(0, states).reasons(),
        "first": [(link(w, w), rubles_text(w.amount_kopecks), w) for w in failed.defer("body")[:SHOWN_MAX]],
        "webhook_ids": " ".join(map(str, webhook_ids)),
    }
    return TemplateResponse(request, "admin/ingest/webhook/replay.html", context)


def _primary_keys(given: QueryDict) -> set[int]:
    return {int(word) for word in given.get("ids", "").split() if _PRIMARY_KEY.fullmatch(word)}


def _block(text: str) -> str:
    return format_html('<pre class="delivered">{}</pre>', text)


class DeliveredAdmin(ReadOnlyAdmin):
    """Rows with the bytes that came in."""

    ordering = ["-id"]

    class Media:
        css = {"all": ["ingest/admin.css"]}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer("body")

    @admin.display(description="body, indented")
    def body_indented(self, row: Delivered) -> str:
        if isinstance(row, Webhook) and not row.body:
            return "let go of with time"
        payload = claimed_payload(bytes(row.body))
        try:
            # Indents without reading the numbers, which stay as the bank wrote them.
            text = msgspec.json.format(payload.decode(), indent=2)
        except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
            text = "not JSON"
        return _block(text)

    @admin.display(description="body, the exact bytes")
    def body_bytes(self, row: Delivered) -> str:
        return _block(repr(bytes(row.body))[2:-1])


@admin.register(Webhook)
class WebhookAdmin(DeliveredAdmin):
    list_display = [
        "operation", "source", "state", "payer_inn", "amount", "document_number", "received_at", "attempts",
        "error",
    ]  # fmt: skip
    list_filter = ["status"]
    fieldsets = [
        (None, {"fields": [
            "operation_id", "source", "known_to_the_bank_as",
            "payer_inn", "amount", "document_number", "document_date",
        ]}),
        ("What became of it", {"fields": [
            "state", "received_at", "attempts", "next_attempt_at", "last_error", "applied_at", "payment",
        ]}),
        ("Deliveries", {"fields": ["delivered", "conflicts"]}),
        ("As the bank sent it", {"fields": ["body_indented", "body_bytes"]}),
    ]  # fmt: skip
    search_fields = ["operation_id", "payer_inn"]
    search_help_text = (
        "an operation id, ours or the bank's own, or the INN of failed and dismissed webhooks;"
        " what is applied, find in Payments"
    )
    actions = ["replay_selected"]

    def find(self, rows: QuerySet[Webhook], text: str) -> QuerySet[Webhook]:
        found = list(rows.filter(operation_id__in=operations_called(text)).values_list("pk", flat=True))
        if found or as_operation_id(text):
            return rows.filter(pk__in=found)
        # No index by INN: every webhook would pay for it at the door. What is applied, the ledger finds.
        return rows.filter(status__in=[Webhook.Status.FAILED, Webhook.Status.DISMISSED], payer_inn=text)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.replay_view)
        return [path("replay/", view, name="ingest_webhook_replay"), *super().get_urls()]

    def has_replay_permission(self, request: HttpRequest) -> bool:
        return may_replay(request.user)

    @admin.action(permissions=["replay"], description="Replay")
    def replay_selected(self, request: HttpRequest, selected: QuerySet[Webhook]) -> HttpResponse | None:
        webhook_ids = selected.values_list("id", flat=True)[: REPLAYED_AT_ONCE_MAX + 1]
        return ask_to_replay(request, self.admin_site, list(webhook_ids))

    def replay_view(self, request: HttpRequest) -> HttpResponse:
        """GET asks about the webhooks with the primary keys in `ids`; POST replays them."""
        if not may_replay(request.user):
            raise PermissionDenied
        if request.method == "POST":
            return self._replay(request, _primary_keys(request.POST))
        page = ask_to_replay(request, self.admin_site, _primary_keys(request.GET))
        return page or redirect("admin:ingest_webhook_changelist")

    def _replay(self, request: HttpRequest, webhook_ids: Collection[int]) -> HttpResponse:
        done = replay(webhook_ids, by=cast(User, request.user))
        level = messages.SUCCESS if done.replayed else messages.WARNING
        self.message_user(request, f"Webhooks: {done}.", level)
        return redirect("admin:ingest_webhook_changelist")

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        context = {**(extra_context or {}), "may_replay": may_replay(request.user)}
        return super().change_view(request, object_id, form_url, context)

    @admin.display
    def operation(self, webhook: Webhook) -> str:
        whole = str(webhook.operation_id)
        return format_html('<span title="{}">{}…</span>', whole, whole[:8])

    @admin.display(description="known to the bank as")
    def known_to_the_bank_as(self, webhook: Webhook) -> str:
        return ", ".join(banks_ids(webhook)) or "the operation id"

    @admin.display(description="status")
    def state(self, webhook: Webhook) -> str:
        return format_html('<span class="state-{0}">{0}</span>', webhook.status)

    @admin.display
    def amount(self, webhook: Webhook) -> str:
        return rubles_text(webhook.amount_kopecks)

    @admin.display(description="last error")
    def error(self, webhook: Webhook) -> str:
        return Truncator(webhook.last_error).chars(ERROR_CHARS_SHOWN)

    @admin.display(description="payment in the ledger")
    def payment(self, webhook: Webhook) -> str:
        payment = Payment.objects.filter(operation_id=webhook.operation_id).first()
        return link(payment, rubles_text(payment.amount_kopecks)) if payment else "none"

    @admin.display(description="deliveries still kept")
    def delivered(self, webhook: Webhook) -> str:
        repeated, conflicting = webhook.repeated_deliveries.count(), webhook.conflicting_deliveries.count()
        return f"{1 + repeated + conflicting}: 1 stored, {repeated} repeated, {conflicting} conflicting"

    @admin.display(description="conflicting deliveries")
    def conflicts(self, webhook: Webhook) -> str:
        newest = webhook.conflicting_deliveries.defer("body").order_by("-id")[:SHOWN_MAX]
        lines = [(link(one, f"{one.received_at:%Y-%m-%d %H:%M:%S}"), one.difference) for one in newest]
        every = list_link(ConflictingDelivery, "all of them", webhook__exact=str(webhook.pk))
        shown = format_html_join("", "{}: other {}<br>", lines)
        return format_html("{}{}", shown, every) if lines else "none"


@admin.register(RejectedDelivery)
class RejectedDeliveryAdmin(DeliveredAdmin):
    list_display = ["received_at", "source", "reason"]
    fields = ["received_at", "source", "reason", "body_indented", "body_bytes"]


@admin.register(IgnoredDelivery)
class IgnoredDeliveryAdmin(RejectedDeliveryAdmin):
    """With the same columns."""


@admin.register(ConflictingDelivery)
class ConflictingDeliveryAdmin(DeliveredAdmin):
    list_display = ["received_at", "source", "webhook", "difference"]
    fields = ["received_at", "source", "webhook", "difference", "body_indented", "body_bytes"]
    search_fields = ["webhook__operation_id"]
    search_help_text = "an operation id, ours or the bank's own"

    def get_queryset(self, request: HttpRequest) -> QuerySet[ConflictingDelivery]:
        webhooks = Prefetch("webhook", Webhook.objects.defer("body"))
        return super().get_queryset(request).prefetch_related(webhooks)

    def find(self, rows: QuerySet[ConflictingDelivery], text: str) -> QuerySet[ConflictingDelivery]:
        return rows.filter(webhook__operation_id__in=operations_called(text))


@admin.register(Verification)
class VerificationAdmin(ReadOnlyAdmin):
    list_display = ["ended_at", "result", "rows_looked_at", "took"]
    fields = ["ended_at", "result", "rows_looked_at", "took"]
    ordering = ["-id"]

    @admin.display
    def result(self, verification: Verification) -> str:
        return verification.drift or "all is right"
