"""A webhook's story, in the order in which it happened."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ingest.banks.telling import Credit
from ingest.comparing import Compared, compare, compare_sources
from ingest.doors import DOORS_BY_NAME
from ingest.exceptions import InvalidDelivery, TurnedAway
from ingest.models import ActedWebhook, ConflictingDelivery, KeptDelivery, Webhook
from ingest.signing import claimed_payload
from ledger.browsing import link
from ledger.models import Payment
from ledger.money import rubles_text

SHOWN_MAX = 20  # of a kind


@dataclass(frozen=True)
class Event:
    """One thing that happened. Without a moment it is how things stand."""

    at: datetime | None
    mark: str  # a CSS class
    title: str
    text: str | SafeString = ""
    compared: Sequence[Compared] = ()
    traceback: str = ""


def told(webhook: Webhook) -> list[Event]:
    """All but the attempts, which the worker knows."""
    return [
        Event(webhook.received_at, "received", _("Delivered for the first time, and stored"), _from(webhook)),
        *_repeats(webhook),
        *_conflicts(webhook),
        *_acts(webhook),
        *_posting(webhook),
        *_standing(webhook),
    ]


def in_order(events: Sequence[Event]) -> list[Event]:
    """By their moments; how things stand comes last."""
    return sorted(events, key=lambda event: (event.at is None, event.at or 0))


def _from(delivery: Webhook | KeptDelivery) -> str:
    """Empty where no address was seen: by way of a Unix socket, or before addresses were kept."""
    address = delivery.source_address
    return _("from {address}").format(address=address) if address else ""


def _repeats(webhook: Webhook) -> Iterator[Event]:
    newest = list(webhook.repeated_deliveries.order_by("-id")[: SHOWN_MAX + 1])
    for one in newest[:SHOWN_MAX]:
        yield Event(one.received_at, "repeated", _("Delivered again, with the same content"), _from(one))
    if len(newest) > SHOWN_MAX:
        text = _("These are the newest {shown} of {all} repeated deliveries.")
        count = webhook.repeated_deliveries.count()
        yield Event(newest[-2].received_at, "repeated", "…", text.format(shown=SHOWN_MAX, all=count))


def _conflicts(webhook: Webhook) -> Iterator[Event]:
    newest = webhook.conflicting_deliveries.select_related("resolved_in").order_by("-id")[:SHOWN_MAX]
    for one in newest:
        words = [link(one, _("the delivery")), _from(one), _resolution(one)]
        yield Event(
            one.received_at,
            "conflict" if one.resolved_in_id is None else "resolved",
            _("Delivered again, with other content: a conflict, nothing was posted for it"),
            format_html("{} {}: {}", *words),
            _compared(webhook, one),
        )


def _resolution(one: ConflictingDelivery) -> str:
    act = one.resolved_in
    return _("open") if act is None else link(act, _("resolved by {name}").format(name=act.by_name))


def _compared(webhook: Webhook, one: ConflictingDelivery) -> Sequence[Compared]:
    try:
        told = DOORS_BY_NAME[one.source].read(claimed_payload(bytes(one.body)))
    except (KeyError, InvalidDelivery, TurnedAway):  # the doors or the rules were other ones when it came
        return ()
    if not isinstance(told, Credit):
        return ()
    return [*compare_sources(webhook.source, one.source), *compare(webhook.terms, told.terms)]


def _acts(webhook: Webhook) -> Iterator[Event]:
    newest = ActedWebhook.objects.filter(webhook=webhook).select_related("act").order_by("-id")[:SHOWN_MAX]
    for one in newest:
        title = f"{one.act.get_kind_display()}: {one.get_outcome_display()}".capitalize()
        text = format_html("{} — {} ({})", one.act.by_name, one.act.reason, link(one.act, _("the act")))
        yield Event(one.act.at, "act", title, text)


def _posting(webhook: Webhook) -> Iterator[Event]:
    payments = Payment.objects.select_related("organization", "log_line")
    payment = payments.filter(operation_id=webhook.operation_id).first()
    if payment is None:
        return
    line = payment.log_line
    before, after = line.balance_after_kopecks - line.amount_kopecks, line.balance_after_kopecks
    text = format_html(
        _("{amount} is line {seq} of {inn}: the balance went from {before} to {after}"),
        amount=link(payment, rubles_text(payment.amount_kopecks)),
        seq=link(line, line.seq),
        inn=link(payment.organization, payment.organization.inn),
        before=rubles_text(before),
        after=rubles_text(after),
    )
    if payment.terms == webhook.terms:
        yield Event(payment.created_at, "applied", _("Applied: posted to the ledger"), text)
    else:
        title = _("The ledger has this operation under other terms")
        yield Event(payment.created_at, "conflict", title, text, compare(webhook.terms, payment.terms))


def _standing(webhook: Webhook) -> Iterator[Event]:
    tries = ngettext("{n} attempt", "{n} attempts", webhook.attempts).format(n=webhook.attempts)
    if webhook.status == Webhook.Status.FAILED:
        title = _("Failed after {tries}; it waits for a person").format(tries=tries)
        yield Event(None, "failed", title, webhook.last_error)
    elif webhook.status == Webhook.Status.DISMISSED:
        yield Event(None, "dismissed", _("Dismissed: it stays so, nothing is posted"), webhook.last_error)
    elif webhook.status == Webhook.Status.RECEIVED:
        title = _("Waits to be applied, after {tries}").format(tries=tries)
        yield Event(None, "received", title, webhook.last_error)
