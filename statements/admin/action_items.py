"""What operator actions settled, on the page of each action: refused ones first, each with the reason."""

from django.db.models import Count, QuerySet
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from core.admin import Viewer, admin_link, format_datetime, may_view
from ingest.admin.operator_actions import SHOWN_MAX, ItemRow, ItemRows, register_items
from ingest.models import OperatorAction, Webhook
from ledger.money import format_rubles
from statements.actions import KINDS
from statements.admin.line_rows import signed_amount
from statements.models import ActionItem, BankStatement, StatementLine

Outcome, Refusal = ActionItem.Outcome, ActionItem.Refusal


def item_rows(action: OperatorAction, viewer: Viewer) -> ItemRows:
    """Return the first items with what the viewer may see of them, and the number of each refusal."""
    items = ActionItem.objects.filter(action=action)
    refused = items.filter(outcome=Outcome.REFUSED)
    counts = refused.values_list("refusal").annotate(Count("pk")).order_by("refusal")
    first = [*_first(refused), *_first(items.exclude(outcome=Outcome.REFUSED))][:SHOWN_MAX]
    webhooks = Webhook.objects.defer("body").in_bulk([item.webhook_id for item in first if item.webhook_id])
    rows = [_row(item, webhooks.get(item.webhook_id or 0), viewer) for item in first]
    return ItemRows(rows, [(count, Refusal(refusal).label) for refusal, count in counts])


def action_links(target: StatementLine | BankStatement) -> SafeString:
    """Return the actions on a line or a statement, newest first, each with its outcome."""
    items = target.action_items.select_related("action").order_by("-pk")[:SHOWN_MAX]
    rows = (
        (
            format_datetime(item.action.at),
            admin_link(item.action, item.action.get_kind_display()),
            item.action.by_name,
            item.action.reason,
            item.get_refusal_display() if item.refusal else item.get_outcome_display(),
        )
        for item in items
    )
    return format_html_join(SafeString("<br>"), "{} {}, {}: {} ({})", rows) or SafeString("–")


def _first(items: QuerySet[ActionItem]) -> QuerySet[ActionItem]:
    found = items.select_related("line__account", "statement").defer("statement__body")
    return found.order_by("pk")[:SHOWN_MAX]


def _row(item: ActionItem, webhook: Webhook | None, viewer: Viewer) -> ItemRow:
    target, payer, amount = "–", "", ""
    if item.line and may_view(viewer, StatementLine):
        target, payer = admin_link(item.line, f"№ {item.line.number or '–'}"), item.line.payer_inn
        amount = signed_amount(item.line)
    elif item.statement and may_view(viewer, BankStatement):
        target = admin_link(item.statement, item.statement.name or item.statement.pk)
    elif webhook and may_view(viewer, Webhook):
        target, payer = admin_link(webhook, f"№ {webhook.document_number}"), webhook.payer_inn
        amount = format_rubles(webhook.amount_kopecks)
    refusal = Refusal(item.refusal).label if item.refusal else ""
    return ItemRow(target, payer, amount, Outcome(item.outcome).label, refusal)


register_items(KINDS, item_rows)
