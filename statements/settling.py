"""What operator actions do to lines of bank statements, webhooks and statements, one item after the other.

Each function returns why items were refused, by their keys. The caller holds the locks of all own accounts,
in a transaction, and has matched all that is new. What is settled becomes undecided: the next matching
decides its bucket, and until then both sides of the identity leave it out.
"""

from collections.abc import Callable, Collection, Container, Mapping
from dataclasses import replace

from django.db import DataError, IntegrityError, transaction
from django.db.models import Q

from ingest.models import OperatorAction, SuspectedDuplicate, Webhook
from ledger import corrections
from ledger.exceptions import CorrectionRefused, MissingOrganizations
from ledger.models import Payment
from ledger.terms import PaymentTerms
from statements import day_totals
from statements.coverage import Period
from statements.line_posting import record_items
from statements.matching import match
from statements.models import (
    ActionItem,
    BankStatement,
    Bucket,
    Decision,
    Match,
    MatchKey,
    Proposal,
    StatementBalance,
    StatementLine,
)
from statements.posting_conditions import POSTABLE, is_proven
from statements.withdrawal import update_withdrawn

Refusal = ActionItem.Refusal
Refusals = Mapping[int, Refusal]
_MISMATCHES = frozenset({Bucket.AMOUNT_MISMATCH, Bucket.PAYER_MISMATCH})
_OFF_STATEMENT = frozenset({Bucket.DUPLICATE, Bucket.NOT_ON_STATEMENT})


def match_suggestions(action: OperatorAction, items: Collection[ActionItem]) -> Refusals:
    """Match each line with the webhook that is suggested for it."""
    return _settle_pairs(action, items, frozenset({Bucket.SUGGESTED}), Match.Rank.CONFIRMED)


def keep(action: OperatorAction, items: Collection[ActionItem]) -> Refusals:
    """Leave the ledger as it is: of a line and its webhook, or of a webhook without a line."""
    webhooks = _by_webhook(items)
    kept = MatchKey.objects.filter(pk__in=webhooks, bucket__in=_OFF_STATEMENT)
    keys = list(kept.values_list("pk", flat=True))
    decisions = (Decision(webhook_id=key, kind=Decision.Kind.KEPT, action=action) for key in keys)
    Decision.objects.bulk_create(decisions)
    _undecide([], keys)
    pairs = _settle_pairs(action, items, _MISMATCHES, Match.Rank.KEPT)
    return _refused(webhooks, keys) | pairs


def _settle_pairs(
    action: OperatorAction, items: Collection[ActionItem], buckets: frozenset[Bucket], rank: Match.Rank
) -> dict[int, Refusal]:
    lines = _by_line(items)
    proposals = Proposal.objects.filter(line__in=lines, line__bucket__in=buckets)
    settled = dict(proposals.values_list("line_id", "webhook_id"))
    Proposal.objects.filter(line__in=settled).delete()
    Match.objects.bulk_create(
        Match(line_id=line, webhook_id=webhook, rank=rank, action=action) for line, webhook in settled.items()
    )
    _undecide(settled.keys(), settled.values())
    return _refused(lines, settled)


def unmatch(action: OperatorAction, items: Collection[ActionItem]) -> Refusals:
    """Undo the matches of lines. One that the matching found would be found again: separate its line.

    A line that was posted stays matched; to undo that is to reverse its payment.
    """
    lines = _by_line(items)
    matches = Match.objects.filter(live=True, line__in=lines).exclude(rank=Match.Rank.POSTED)
    undone = {found.line_id: found for found in matches}
    Match.objects.filter(pk__in=[found.pk for found in undone.values()]).update(live=None)
    automatic = [line for line, found in undone.items() if found.rank in Match.AUTOMATIC]
    _decide(automatic, Decision.Kind.SEPARATED, action)
    _undecide(undone.keys(), [found.webhook_id for found in undone.values()])
    return _refused(lines, undone)


def exclude(action: OperatorAction, items: Collection[ActionItem]) -> Refusals:
    """Decide that lines are not to be posted."""
    lines = _by_line(items)
    excluded = StatementLine.objects.filter(pk__in=lines, bucket__in=POSTABLE)
    keys = list(excluded.values_list("pk", flat=True))
    _decide(keys, Decision.Kind.EXCLUDED, action)
    _undecide(keys, [])
    return _refused(lines, keys)


def reopen(_action: OperatorAction, items: Collection[ActionItem]) -> Refusals:
    """Undo the decisions about lines and webhooks."""
    lines, webhooks = _by_line(items), _by_webhook(items)
    decisions = Decision.objects.filter(Q(line__in=lines) | Q(webhook__in=webhooks))
    decided = list(decisions.values_list("line_id", "webhook_id"))
    decisions.delete()
    decided_lines = [line for line, _ in decided if line]
    decided_webhooks = [webhook for _, webhook in decided if webhook]
    _undecide(decided_lines, decided_webhooks)
    return _refused(lines, decided_lines) | _refused(webhooks, decided_webhooks)


def _by_line(items: Collection[ActionItem]) -> dict[int, int]:
    """Return the keys of the items that are about lines, by those of their lines."""
    return {item.line_id: item.pk for item in items if item.line_id}


def _by_webhook(items: Collection[ActionItem]) -> dict[int, int]:
    return {item.webhook_id: item.pk for item in items if item.webhook_id}


def _refused(items: Mapping[int, int], settled: Container[int]) -> dict[int, Refusal]:
    return {item: Refusal.CHANGED for target, item in items.items() if target not in settled}


def take_back(_action: OperatorAction, items: Collection[ActionItem]) -> Refusals:
    """Reverse the payments that no line shows, or whose lines the bank has reversed."""
    return _correct_each(items, _take_back)


def replace_by_line(_action: OperatorAction, items: Collection[ActionItem]) -> Refusals:
    """Reverse payments that differ from their lines, and post these by payer and amount of the line."""
    return _correct_each(items, _replace_by_line)


def _correct_each(
    items: Collection[ActionItem], correct: Callable[[ActionItem], Refusal]
) -> dict[int, Refusal]:
    refusals = {}
    for item in items:
        try:
            with transaction.atomic():
                refusal = correct(item)
        except MissingOrganizations:
            raise
        except (CorrectionRefused, IntegrityError, DataError):  # the latter two if a balance would overflow
            refusal = Refusal.LEDGER
        if refusal:
            refusals[item.pk] = refusal
    return refusals


def _take_back(item: ActionItem) -> Refusal:
    if item.webhook_id:
        key = MatchKey.objects.get(pk=item.webhook_id)
        if key.bucket not in _OFF_STATEMENT:
            return Refusal.CHANGED
        _confirm_duplicate(key.pk, item)
        _correct(key, corrections.reversal, item)
        _undecide([], [key.pk])
        return Refusal.NONE
    line = StatementLine.objects.get(action_items=item)
    found = Match.objects.filter(live=True, line=line.reverses_id).first() if line.reverses_id else None
    if line.bucket != Bucket.REVERSED_BY_BANK or found is None:
        return Refusal.CHANGED
    _correct(MatchKey.objects.get(pk=found.webhook_id), corrections.reversal, item)
    _undecide([line.pk, found.line_id], [found.webhook_id])
    return Refusal.NONE


def _replace_by_line(item: ActionItem) -> Refusal:
    line = StatementLine.objects.select_related("account").get(action_items=item)
    proposal = Proposal.objects.filter(line=line).first()
    if line.bucket not in _MISMATCHES or proposal is None:
        return Refusal.CHANGED
    if not is_proven(line):
        return Refusal.UNPROVEN

    def terms_of(payment: Payment) -> PaymentTerms:
        return replace(payment.terms, inn=line.inn or "", amount_kopecks=line.kopecks)

    _correct(MatchKey.objects.get(pk=proposal.webhook_id), terms_of, item)
    _undecide([line.pk], [proposal.webhook_id])
    return Refusal.NONE


def _confirm_duplicate(webhook: int, item: ActionItem) -> None:
    """Decide the pair whose later webhook is taken back, if it is open."""
    pairs = SuspectedDuplicate.objects.filter(pk=webhook, state=SuspectedDuplicate.State.OPEN)
    pairs.update(state=SuspectedDuplicate.State.CONFIRMED, decided_by=item.action_id)


def _correct(key: MatchKey, decide: corrections.Decide, item: ActionItem) -> None:
    """Correct the payment that was matched, and record it with the webhook.

    Raise CorrectionRefused if another payment stands by now.
    """
    operation_id = Webhook.objects.values_list("operation_id", flat=True).get(pk=key.pk)

    def checked(payment: Payment) -> PaymentTerms | None:
        if payment.pk != key.payment_id or Payment.objects.filter(reverses=payment).exists():
            raise CorrectionRefused("the payment was corrected since the matching")
        return decide(payment)

    corrections.correct(operation_id, checked)
    record_items([key.pk], item.action_id)


def accept(action: OperatorAction, items: Collection[ActionItem]) -> Refusals:
    """Take statements for complete, and decide everything again."""
    refusals = {}
    for item in items:
        unproven = BankStatement.objects.filter(action_items=item, accepted_by=None)
        if not unproven.update(accepted_by=action):
            refusals[item.pk] = Refusal.CHANGED
            continue
        for balance in StatementBalance.objects.filter(statement__action_items=item).select_related(
            "account"
        ):
            if balance.first_day and balance.last_day and balance.first_day <= balance.last_day:
                update_withdrawn(balance.account, Period(balance.first_day, balance.last_day))
    match(is_full=True)
    return refusals


def _decide(lines: Collection[int], kind: Decision.Kind, action: OperatorAction) -> None:
    Decision.objects.filter(line__in=lines).delete()
    Decision.objects.bulk_create(Decision(line_id=line, kind=kind, action=action) for line in lines)


def _undecide(lines: Collection[int], webhooks: Collection[int]) -> None:
    day_totals.undecide(StatementLine.objects.filter(pk__in=lines))
    MatchKey.objects.filter(pk__in=webhooks).update(bucket=Bucket.UNDECIDED)
