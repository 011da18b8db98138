"""Post lines of bank statements that no webhook notified.

Posting a line is to store a webhook of source `statement`, which a worker applies like any other. Its
operation id follows from the line, so that the unique key of the inbox refuses a second one.

The locks of the lines' organizations are held from the last check that the bank has not notified the payment
until the commit. Any webhook that is applied later finds the new one, and is merged into it
(worker/merging.py).
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import date, datetime, timedelta
from datetime import time as time_of_day
from uuid import UUID, uuid5

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from core.db import clock
from ingest import doorbell
from ingest.inbox import Delivery, insert_webhooks
from ingest.models import (
    STATEMENT_SOURCE,
    OperatorAction,
    OperatorActionItem,
    StatementWebhook,
    Webhook,
)
from ingest.number_keys import digits_key, number_key
from ledger import corrections
from ledger.inn import UNKNOWN_ACCOUNT, is_suspense
from ledger.posting import try_lock
from ledger.terms import PaymentTerms
from statements import webhook_terms
from statements.coverage import PROVEN
from statements.match_sql import NEAR_DAYS_MAX
from statements.models import (
    ActionItem,
    Bucket,
    LineSighting,
    Match,
    MatchKey,
    StatementBalance,
    StatementLine,
)

Refusal = ActionItem.Refusal
POSTABLE = frozenset({Bucket.MISSING_WEBHOOK, Bucket.UNIDENTIFIED})
WITHOUT_NUMBER = "б/н"  # без номера, as banks write it
ONE_DAY = timedelta(days=1)
_NAMESPACE_STATEMENT = UUID("5d1b9e6c-3f0a-4a3e-8a52-71c4c0f2b9d7")
_NEAR = timedelta(days=NEAR_DAYS_MAX)


def operation_id(line: StatementLine) -> UUID:
    """Return the operation id under which the line is posted: there is only one."""
    return uuid5(_NAMESPACE_STATEMENT, json.dumps([line.account.number, line.fingerprint, line.ordinal]))


def run(action: OperatorAction, items: Collection[ActionItem]) -> dict[int, Refusal]:
    """Post the lines of `items`; return why some were refused, by the keys of their items.

    The caller holds the locks of all own accounts, in a transaction. Raise MissingOrganizations.
    """
    lines = StatementLine.objects.select_related("account").in_bulk([item.line_id for item in items])
    organizations = {line.inn for line in lines.values() if line.inn}
    if any(map(is_suspense, organizations)):  # where a source that names no account posts such payments
        organizations.add(UNKNOWN_ACCOUNT)
    try_lock(organizations, wait=True)
    webhook_terms.add_new()
    now = clock.database_now()
    refusals = {line.pk: refusal for line in lines.values() if (refusal := _refusal(line, now))}
    _post([line for line in lines.values() if line.pk not in refusals], action)
    return {item.pk: refusals[item.line_id] for item in items if item.line_id in refusals}


def _refusal(line: StatementLine, now: datetime) -> Refusal:
    if line.bucket not in POSTABLE:
        return Refusal.CHANGED
    if not is_proven(line):
        return Refusal.UNPROVEN
    if now < postable_from(line.booked_on):
        return Refusal.TOO_EARLY
    if Webhook.objects.filter(operation_id=operation_id(line)).exists():
        return Refusal.EXISTS
    return Refusal.NOTIFIED if _is_notified(line) else Refusal.NONE


def is_proven(line: StatementLine) -> bool:
    """Return whether a statement that has the line proves the account, on a day that was over."""
    proven = StatementBalance.objects.filter(
        PROVEN, account=line.account_id, first_day__lte=line.booked_on, finished_day__gte=line.booked_on
    )
    seen_in = LineSighting.objects.filter(line=line).values("statement")
    return proven.filter(last_day__gte=line.booked_on, statement__in=seen_in).exists()


def postable_from(day: date) -> datetime:
    """Return when payments of `day` may be posted: banks repeat a webhook for up to a day."""
    end = datetime.combine(day + ONE_DAY, time_of_day(), settings.STATEMENT_TIME_ZONE)
    return end + timedelta(hours=settings.STATEMENT_POST_AFTER_HOURS)


def _is_notified(line: StatementLine) -> bool:
    """Return whether a webhook that no other line explains may be this payment, applied or not.

    A webhook whose match with this line an operator has undone is another payment.
    """
    payer = Q(inn=line.inn) | Q(notified_inn=line.inn)
    if is_suspense(line.inn or ""):
        payer |= Q(notified_inn=UNKNOWN_ACCOUNT)
    near = Q(day__range=(line.date - _NEAR, line.date + _NEAR))
    near |= Q(day__range=(line.booked_on - _NEAR, line.booked_on + _NEAR))
    digits = digits_key(line.number or WITHOUT_NUMBER)
    candidates = MatchKey.objects.filter(payer, near, kopecks=line.kopecks, digits_key=digits)
    explained = Match.objects.filter(Q(live=True) | Q(line=line), webhook__in=candidates.values("webhook"))
    webhooks = Webhook.objects.filter(
        match_key__in=candidates.exclude(webhook__in=explained.values("webhook"))
    )
    return any(_may_count(*found) for found in webhooks.values_list("status", "operation_id"))


def _may_count(status: str, operation: UUID) -> bool:
    """Return whether a webhook has changed the balance or still may."""
    if status == Webhook.Status.APPLIED:
        return not any(is_reversed for _, _, is_reversed in corrections.states([operation]))
    return status not in {Webhook.Status.DISMISSED, Webhook.Status.MERGED}


def _post(lines: Collection[StatementLine], action: OperatorAction) -> None:
    if not lines:
        return
    insert_webhooks([(_terms(line), Delivery(line.raw.encode(), STATEMENT_SOURCE)) for line in lines])
    ids = [operation_id(line) for line in lines]
    keys = dict(Webhook.objects.filter(operation_id__in=ids).values_list("operation_id", "pk"))
    by_webhook = {keys[operation_id(line)]: line for line in lines}
    StatementWebhook.objects.bulk_create(
        StatementWebhook(
            webhook_id=key,
            inn=line.inn or "",
            kopecks=line.kopecks,
            digits_key=digits_key(line.number or WITHOUT_NUMBER) or "",
            day=line.date,
        )
        for key, line in by_webhook.items()
    )
    MatchKey.objects.bulk_create(_keys(by_webhook))
    Match.objects.bulk_create(
        Match(line=line, webhook_id=key, rank=Match.Rank.POSTED, action=action)
        for key, line in by_webhook.items()
    )
    posted = StatementLine.objects.filter(pk__in=[line.pk for line in lines])
    posted.update(bucket=Bucket.UNPOSTED)
    record_items(by_webhook, action.pk)
    transaction.on_commit(doorbell.ring)


def record_items(webhook_ids: Iterable[int], action: int) -> None:
    """Add the action to the history of the webhooks whose payments it posted or corrected."""
    OperatorActionItem.objects.bulk_create(
        OperatorActionItem(action_id=action, webhook_id=key, outcome=OperatorActionItem.Outcome.DONE)
        for key in webhook_ids
    )


def _terms(line: StatementLine) -> PaymentTerms:
    """Return what is posted; midnight of the statement's date falls on its day."""
    at = datetime.combine(line.date, time_of_day(), settings.STATEMENT_TIME_ZONE)
    number = line.number or WITHOUT_NUMBER
    return PaymentTerms(operation_id(line), line.inn or "", line.kopecks, number, at)


def _keys(by_webhook: Mapping[int, StatementLine]) -> Iterator[MatchKey]:
    for key, line in by_webhook.items():
        yield MatchKey(
            webhook_id=key,
            notified_inn=line.inn or "",
            inn=line.inn or "",
            kopecks=line.kopecks,
            number_key=number_key(line.number or WITHOUT_NUMBER),
            digits_key=digits_key(line.number or WITHOUT_NUMBER),
            day=line.date,
            state=MatchKey.State.UNPOSTED,
            bucket=Bucket.MATCHED,
        )
