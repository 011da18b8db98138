"""What a decision on suspected duplicates would do, pair by pair, for its confirmation page."""

from collections.abc import Iterable
from dataclasses import dataclass

from django.utils.translation import gettext as _

from core.admin import admin_link
from ingest import correction_actions
from ingest.models import OperatorAction, SuspectedDuplicate, Webhook
from ledger.exceptions import CorrectionRefused
from ledger.money import format_rubles

Kind = OperatorAction.Kind


@dataclass(frozen=True)
class PairPreview:
    later: str  # a link, as `first`
    first: str
    inn: str
    amount: str
    effect: str


def pair_previews(kind: Kind, webhooks: Iterable[Webhook]) -> list[PairPreview]:
    """Return what the decision does to each of these webhooks, the later ones of their pairs."""
    pairs = SuspectedDuplicate.objects.filter(pk__in=[webhook.pk for webhook in webhooks])
    firsts = dict(pairs.values_list("pk", "first__operation_id"))
    first_keys = dict(pairs.values_list("pk", "first_id"))
    return [
        PairPreview(
            admin_link(webhook, webhook),
            admin_link(Webhook(pk=first_keys[webhook.pk]), firsts[webhook.pk]),
            webhook.payer_inn,
            format_rubles(webhook.amount_kopecks),
            _effect(kind, webhook),
        )
        for webhook in webhooks
        if webhook.pk in firsts
    ]


def _effect(kind: Kind, webhook: Webhook) -> str:
    is_held = webhook.status == Webhook.Status.HELD
    if kind == Kind.CLEAR:
        return _("will be posted") if is_held else _("stays posted")
    if is_held:
        return _("will not be posted")
    try:
        balances = correction_actions.plan(Kind.REVERSE, webhook, "").balances()
    except CorrectionRefused as exc:
        return str(exc)
    text = _("balance of {inn}: {before}, then {after}")
    return ", ".join(
        text.format(inn=inn, before=format_rubles(before), after=format_rubles(after))
        for inn, before, after in balances
    )
