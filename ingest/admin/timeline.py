"""The timeline of a webhook: what happened to it, in chronological order."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from core.admin import Viewer, admin_link, link_if_visible, may_view
from ingest.banks.events import CreditEvent
from ingest.banks.registry import read_stored
from ingest.exceptions import InvalidDelivery, NotAuthorized
from ingest.models import ConflictingDelivery, DeliveryRecord, OperatorActionItem, Webhook
from ingest.terms_diff import FieldDiff, diff_sources, diff_terms
from ledger.models import BalanceLog, Payment
from ledger.money import format_rubles

SHOWN_MAX = 20  # per kind of event


@dataclass(frozen=True)
class TimelineEvent:
    """An event, or without `at` the current state."""

    at: datetime | None
    css_class: str
    title: str
    text: str | SafeString = ""
    diff: Sequence[FieldDiff] = ()
    traceback: str = ""


Provider = Callable[[Webhook, Viewer], Iterable[TimelineEvent]]
_providers: list[Provider] = []


def add_provider(provider: Provider) -> None:
    """Register a provider of further events, for an app that this one must not import."""
    _providers.append(provider)


def events_of(webhook: Webhook, viewer: Viewer) -> list[TimelineEvent]:
    """Return the events in order, the current state last; of other models' rows what `viewer` may see."""
    events = [
        TimelineEvent(webhook.received_at, "received", _("First delivery, stored"), _origin(webhook)),
        *_duplicates(webhook),
        *_conflicts(webhook, viewer),
        *_actions(webhook),
        *_posting(webhook, viewer),
        *_corrections(webhook, viewer),
        *_current_state(webhook),
        *(event for provider in _providers for event in provider(webhook, viewer)),
    ]
    return sorted(events, key=lambda event: (event.at is None, event.at or 0))


def _origin(delivery: Webhook | DeliveryRecord) -> str:
    """Return the client IP as text; empty if none was recorded, as over a Unix socket."""
    return _("from {address}").format(address=delivery.client_ip) if delivery.client_ip else ""


def _duplicates(webhook: Webhook) -> Iterator[TimelineEvent]:
    newest = list(webhook.duplicate_deliveries.order_by("-id")[: SHOWN_MAX + 1])
    for delivery in newest[:SHOWN_MAX]:
        yield TimelineEvent(
            delivery.received_at, "duplicate", _("Duplicate delivery, same content"), _origin(delivery)
        )
    if len(newest) > SHOWN_MAX:
        text = _("These are the latest {shown} of {all} duplicate deliveries.")
        count = webhook.duplicate_deliveries.count()
        yield TimelineEvent(newest[-2].received_at, "duplicate", "…", text.format(shown=SHOWN_MAX, all=count))


def _conflicts(webhook: Webhook, viewer: Viewer) -> Iterator[TimelineEvent]:
    newest = webhook.conflicting_deliveries.select_related("resolved_by").order_by("-id")[:SHOWN_MAX]
    for delivery in newest:
        css_class = "conflict" if delivery.resolved_by_id is None else "resolved"
        title = _("Conflicting delivery, different content: not posted")
        if may_view(viewer, ConflictingDelivery):
            parts = [admin_link(delivery, _("the delivery")), _origin(delivery), _resolution(delivery)]
            text = format_html("{} {}: {}", *parts)
            yield TimelineEvent(delivery.received_at, css_class, title, text, _diff(webhook, delivery))
        else:
            yield TimelineEvent(delivery.received_at, css_class, title, _resolution(delivery))


def _resolution(delivery: ConflictingDelivery) -> str:
    action = delivery.resolved_by
    return (
        _("open")
        if action is None
        else admin_link(action, _("resolved by {name}").format(name=action.by_name))
    )


def _diff(webhook: Webhook, delivery: ConflictingDelivery) -> Sequence[FieldDiff]:
    try:
        event = read_stored(delivery.source, delivery.body)
    except (KeyError, InvalidDelivery, NotAuthorized):  # the endpoints or the rules have changed since
        return ()
    if not isinstance(event, CreditEvent):
        return ()
    return [*diff_sources(webhook.source, delivery.source), *diff_terms(webhook.terms, event.terms)]


def _actions(webhook: Webhook) -> Iterator[TimelineEvent]:
    items = OperatorActionItem.objects.filter(webhook=webhook).select_related("action")
    for item in items.order_by("-id")[:SHOWN_MAX]:
        action = item.action
        title = f"{action.get_kind_display()}: {item.get_outcome_display()}".capitalize()
        link = admin_link(action, _("operator action"))
        text = format_html("{} — {} ({})", action.by_name, action.reason, link)
        yield TimelineEvent(action.at, "action", title, text)


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
        title = _("The ledger has this operation with different terms")
        diff = diff_terms(webhook.terms, payment.terms)
        yield TimelineEvent(payment.created_at, "conflict", title, text, diff)


def _corrections(webhook: Webhook, viewer: Viewer) -> Iterator[TimelineEvent]:
    """Yield the reversal of the payment, the payment posted in its place, the reversal of that, and so on."""
    if not may_view(viewer, Payment):
        return
    payments = Payment.objects.select_related("organization", "log_entry")
    payment = payments.filter(operation_id=webhook.operation_id, kind=Payment.Kind.PAYMENT).first()
    while payment and (reversal := payments.filter(reverses=payment).first()):
        title = _("Reversed: the payment is taken back")
        yield TimelineEvent(reversal.created_at, "reversed", title, _effect(reversal, viewer))
        before, payment = payment, payments.filter(replaces__replaced=payment).first()
        if payment:
            diff = [each for each in diff_terms(before.terms, payment.terms) if each.differs]
            title = _("Posted again, with other terms") if diff else _("Posted again, with the same terms")
            yield TimelineEvent(payment.created_at, "applied", title, _effect(payment, viewer), diff)


def _effect(payment: Payment, viewer: Viewer) -> str:
    """Return the amount, with its entry in the balance log if `viewer` may see that."""
    entry = payment.log_entry
    amount = admin_link(payment, format_rubles(entry.amount_kopecks))
    if not may_view(viewer, BalanceLog):
        return amount
    before, after = entry.balance_after_kopecks - entry.amount_kopecks, entry.balance_after_kopecks
    return format_html(
        _("{amount} is entry {seq} of {inn}: the balance went from {before} to {after}"),
        amount=amount,
        seq=admin_link(entry, entry.seq),
        inn=link_if_visible(viewer, payment.organization, payment.organization.inn),
        before=format_rubles(before),
        after=format_rubles(after),
    )


def _current_state(webhook: Webhook) -> Iterator[TimelineEvent]:
    attempts = ngettext("{n} attempt", "{n} attempts", webhook.attempts).format(n=webhook.attempts)
    if webhook.status == Webhook.Status.FAILED:
        title = _("Failed after {attempts}; an operator has to decide").format(attempts=attempts)
    elif webhook.status == Webhook.Status.DISMISSED:
        title = _("Dismissed for good: nothing is posted")
    elif webhook.status == Webhook.Status.MERGED:
        title = _("Merged into the payment that was posted from a bank statement; nothing more is posted")
    elif webhook.status == Webhook.Status.HELD:
        title = _("Held, because it looks like a payment that is posted; an operator has to decide")
    elif webhook.status == Webhook.Status.RECEIVED:
        title = _("Pending, after {attempts}").format(attempts=attempts)
    else:
        return
    yield TimelineEvent(None, webhook.status, title, webhook.last_error)
