"""What an operator action would do to posted payments, for its confirmation page."""

from collections.abc import Iterable
from dataclasses import dataclass

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from core.admin import admin_link
from ingest import correction_actions
from ingest.models import OperatorAction, Webhook
from ledger.corrections import Plan, current_balances
from ledger.exceptions import CorrectionRefused
from ledger.inn import is_checksum_valid, is_suspense
from ledger.money import format_rubles

Kind = OperatorAction.Kind


@dataclass(frozen=True)
class EntryPreview:
    """An entry that will be written, with the balances around it."""

    inn: str
    warning: str  # about the organization; empty if there is none
    amount: str
    before: str
    after: str


@dataclass(frozen=True)
class Preview:
    link: str  # to the webhook
    entries: list[EntryPreview]
    refusal: str = ""  # why the payment can't be corrected


def previews(kind: Kind, webhooks: Iterable[Webhook], inn: str) -> list[Preview]:
    """Return what would be done to each payment, in this order, each balance following from the one before.

    `inn` is of an assignment; as long as it is empty, there is nothing to show.
    """
    if kind == Kind.ASSIGN and not inn:
        return []
    balances: dict[str, int] = {}
    known: set[str] = set()
    found = []
    for webhook in webhooks:
        link = admin_link(webhook, webhook)
        try:
            plan = correction_actions.plan(kind, webhook, inn)
        except CorrectionRefused as exc:
            found.append(Preview(link, [], str(exc)))
            continue
        current = current_balances(plan.inns - balances.keys())
        known |= current.keys()
        balances = dict.fromkeys(plan.inns, 0) | current | balances
        found.append(Preview(link, _entries(plan, balances, known)))
    return found


def _entries(plan: Plan, balances: dict[str, int], known: set[str]) -> list[EntryPreview]:
    """Return the entries of `plan`, and bring `balances` forward by them."""
    found = []
    for inn, amount in plan.entries:
        before = balances[inn]
        balances[inn] += amount
        amounts = [format_rubles(each) for each in (amount, before, balances[inn])]
        found.append(EntryPreview(inn, _warning(inn, is_known=inn in known), *amounts))
    return found


def _warning(inn: str, *, is_known: bool) -> str:
    if is_suspense(inn):
        return _("suspense account")
    if not is_checksum_valid(inn):
        return _("the check digits are invalid")
    return "" if is_known else _("new: nothing was posted to it before")


def submit_label(kind: Kind, n: int, inn: str) -> str:
    """Return the text of the button."""
    match kind:
        case Kind.REVERSE:
            text = ngettext("Reverse {n} payment", "Reverse {n} payments", n)
        case Kind.RESTORE:
            text = ngettext("Post {n} payment again", "Post {n} payments again", n)
        case Kind.REPLACE:
            text = ngettext("Reverse and replace {n} payment", "Reverse and replace {n} payments", n)
        case Kind.ASSIGN if not inn:
            text = _("Show the balances")
        case Kind.ASSIGN:
            text = ngettext("Assign {n} payment to {inn}", "Assign {n} payments to {inn}", n)
        case _:
            text = ngettext("Return {n} payment to suspense", "Return {n} payments to suspense", n)
    return text.format(n=n, inn=inn)
