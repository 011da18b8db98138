"""A webhook's story, in the order in which it happened."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from core.admin import Viewer, admin_link, link_if_visible, may_view
from ingest.banks.events import CreditEvent
from ingest.banks.registry import ENDPOINTS_BY_NAME
from ingest.exceptions import InvalidDelivery, NotAuthorized
from ingest.models import ConflictingDelivery, DeliveryRecord, OperatorActionItem, Webhook
from ingest.signatures import unverified_payload
from ingest.terms_diff import FieldDiff, diff_sources, diff_terms
from ledger.models import BalanceLog, Payment
from ledger.money import format_rubles

SHOWN_MAX = 20  # of a kind


@dataclass(frozen=True)
class TimelineEvent:
    """One thing that happened. Without a moment it is how things stand."""

    at: datetime | None
    mark: str  # a CSS class
    title: str
    text: str | SafeString = ""
    compared: Sequence[FieldDiff] = ()
    traceback: str = ""


def events_of(webhook: Webhook, viewer: Viewer) -> list[TimelineEvent]:
    """All but the attempts, which the worker knows; of other models' rows only what `viewer` may see."""
    return [
        TimelineEvent(
            webhook.received_at, "received", _("Delivered for the first time, and stored"), _from(webhook)
        ),
        *_repeats(webhook),
        *_conflicts(webhook, viewer),
        *_acts(webhook),
        *_posting(webhook, viewer),
        *_standing(webhook),
    ]


def chronological(events: Sequence[TimelineEvent]) -> list[TimelineEvent]:
    """By their moments; how things stand comes last."""
    return sorted(events, key=lambda event: (event.at is None, event.at or 0))


def _from(delivery: Webhook | DeliveryRecord) -> str:
    """Empty where no address was seen: by way of a Unix socket, or before addresses were kept."""
    address = delivery.client_ip
    return _("from {address}").format(address=address) if address else ""


def _repeats(webhook: Webhook) -> Iterator[TimelineEvent]:
    newest = list(webhook.duplicate_deliveries.order_by("-id")[: SHOWN_MAX + 1])
    for one in newest[:SHOWN_MAX]:
        yield TimelineEvent(
            one.received_at, "repeated", _("Delivered again, with the same content"), _from(one)
        )
    if len(newest) > SHOWN_MAX:
        text = _("These are the newest {shown} of {all} repeated deliveries.")
        count = webhook.duplicate_deliveries.count()
        yield TimelineEvent(newest[-2].received_at, "repeated", "…", text.format(shown=SHOWN_MAX, all=count))


def _conflicts(webhook: Webhook, viewer: Viewer) -> Iterator[TimelineEvent]:
    newest = webhook.conflicting_deliveries.select_related("resolved_by").order_by("-id")[:SHOWN_MAX]
    for one in newest:
        mark = "conflict" if one.resolved_by_id is None else "resolved"
        title = _("Delivered again, with other content: a conflict, nothing was posted for it")
        if may_view(viewer, ConflictingDelivery):
            words = [admin_link(one, _("the delivery")), _from(one), _resolution(one)]
            yield TimelineEvent(
                one.received_at, mark, title, format_html("{} {}: {}", *words), _compared(webhook, one)
            )
        else:
            yield TimelineEvent(one.received_at, mark, title, _resolution(one))


def _resolution(one: ConflictingDelivery) -> str:
    action = one.resolved_by
    return (
        _("open")
        if action is None
        else admin_link(action, _("resolved by {name}").format(name=action.by_name))
    )


def _compared(webhook: Webhook, one: ConflictingDelivery) -> Sequence[FieldDiff]:
    try:
        told = ENDPOINTS_BY_NAME[one.source].read(unverified_payload(bytes(one.body)))
    except (KeyError, InvalidDelivery, NotAuthorized):  # the doors or the rules were other ones when it came
        return ()
    if not isinstance(told, CreditEvent):
        return ()
    return [*diff_sources(webhook.source, one.source), *diff_terms(webhook.terms, told.terms)]


def _acts(webhook: Webhook) -> Iterator[TimelineEvent]:
    newest = (
        OperatorActionItem.objects.filter(webhook=webhook)
        .select_related("action")
        .order_by("-id")[:SHOWN_MAX]
    )
    for one in newest:
        title = f"{one.action.get_kind_display()}: {one.get_outcome_display()}".capitalize()
        text = format_html(
            "{} — {} ({})", one.action.by_name, one.action.reason, admin_link(one.action, _("the act"))
        )
        yield TimelineEvent(one.action.at, "action", title, text)


def _posting(webhook: Webhook, viewer: Viewer) -> Iterator[TimelineEvent]:
    posted = _("Applied: posted to the ledger")
    if not may_view(viewer, Payment):
        if webhook.applied_at:
            yield TimelineEvent(webhook.applied_at, "applied", posted)
        return
    payments = Payment.objects.select_related("organization", "log_entry")
    payment = payments.filter(operation_id=webhook.operation_id).first()
    if payment is None:
        return
    text = _effect(payment, viewer)
    if payment.terms == webhook.terms:
        yield TimelineEvent(payment.created_at, "applied", posted, text)
    else:
        title = _("The ledger has this operation under other terms")
        yield TimelineEvent(
            payment.created_at, "conflict", title, text, diff_terms(webhook.terms, payment.terms)
        )


def _effect(payment: Payment, viewer: Viewer) -> str:
    """The payment, and for who may see the log, its line there."""
    amount = admin_link(payment, format_rubles(payment.amount_kopecks))
    if not may_view(viewer, BalanceLog):
        return amount
    line = payment.log_entry
    before, after = line.balance_after_kopecks - line.amount_kopecks, line.balance_after_kopecks
    return format_html(
        _("{amount} is line {seq} of {inn}: the balance went from {before} to {after}"),
        amount=amount,
        seq=admin_link(line, line.seq),
        inn=link_if_visible(viewer, payment.organization, payment.organization.inn),
        before=format_rubles(before),
        after=format_rubles(after),
    )


def _standing(webhook: Webhook) -> Iterator[TimelineEvent]:
    tries = ngettext("{n} attempt", "{n} attempts", webhook.attempts).format(n=webhook.attempts)
    if webhook.status == Webhook.Status.FAILED:
        title = _("Failed after {tries}; it waits for a person").format(tries=tries)
        yield TimelineEvent(None, "failed", title, webhook.last_error)
    elif webhook.status == Webhook.Status.DISMISSED:
        yield TimelineEvent(
            None, "dismissed", _("Dismissed: it stays so, nothing is posted"), webhook.last_error
        )
    elif webhook.status == Webhook.Status.RECEIVED:
        title = _("Waits to be applied, after {tries}").format(tries=tries)
        yield TimelineEvent(None, "received", title, webhook.last_error)
