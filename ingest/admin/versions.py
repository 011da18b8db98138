"""The versions of operations: their list, and their place in the timeline of a webhook."""

from collections.abc import Iterator

from django.contrib import admin
from django.db.models import QuerySet
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from core.admin import Viewer, admin_link, may_view
from ingest.admin import timeline
from ingest.admin.delivery_bodies import DeliveryBodyAdmin
from ingest.admin.search import matching_operation_ids
from ingest.admin.timeline import SHOWN_MAX, TimelineEvent
from ingest.models import OperationVersion, Webhook
from ingest.terms_diff import diff_terms
from ingest.versions import DELETED, Decision
from ledger.money import format_rubles

Outcome = OperationVersion.Outcome
_CSS = {Decision.STALE: "duplicate", Decision.UNCLEAR: "conflict", Decision.APPROVED: "action"}


@admin.register(OperationVersion)
class OperationVersionAdmin(DeliveryBodyAdmin):
    list_display = [
        "received_at", "operation_id", "number", "decision", "outcome", "payer_inn", "amount", "source",
    ]  # fmt: skip
    list_filter = ["decision", "outcome"]
    fields = [
        "received_at", "source", "client_ip", "operation_id", "webhook", "number", "decision", "outcome",
        "payer_inn", "amount", "document_number", "document_date", "body_indented", "body_bytes",
    ]  # fmt: skip
    related_models = {"webhook": Webhook}
    search_fields = ["operation_id"]
    search_help_text = gettext_lazy("operation id, ours or the bank's")

    def search(self, rows: QuerySet[OperationVersion], text: str) -> QuerySet[OperationVersion]:
        return rows.filter(operation_id__in=matching_operation_ids(text))

    @admin.display(description=gettext_lazy("version"))
    def number(self, version: OperationVersion) -> str:
        return _("deleted") if version.version == DELETED else str(version.version)

    @admin.display(description=gettext_lazy("amount"))
    def amount(self, version: OperationVersion) -> str:
        return format_rubles(version.amount_kopecks)

    @admin.display(description=gettext_lazy("webhook"))
    def webhook(self, version: OperationVersion) -> str:
        webhook = Webhook.objects.defer("body").filter(operation_id=version.operation_id).first()
        return admin_link(webhook, webhook) if webhook else _("none")


def version_events(webhook: Webhook, viewer: Viewer) -> Iterator[TimelineEvent]:
    """Yield an event for each of the newest versions; the first one is the webhook itself."""
    versions = OperationVersion.objects.filter(operation_id=webhook.operation_id).defer("body")
    for version in versions.exclude(decision=Decision.FIRST).order_by("-position")[:SHOWN_MAX]:
        decision = Decision(version.decision)
        is_open = version.outcome in {Outcome.DUE, Outcome.OPERATOR}
        css_class = _CSS.get(decision, "conflict" if is_open else "applied")
        title = _("Version {version}: {decision}").format(
            version=_("“deleted”") if version.version == DELETED else version.version, decision=decision.label
        )
        visible = may_view(viewer, OperationVersion)
        link = admin_link(version, _("the version")) if visible else ""
        outcome = Outcome(version.outcome).label if version.outcome else ""
        text = format_html("{} {}", link, outcome)
        diff = diff_terms(webhook.terms, version.terms) if visible and version.version != DELETED else ()
        yield TimelineEvent(version.received_at, css_class, title, text, diff)


timeline.add_provider(version_events)
