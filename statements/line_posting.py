"""Post lines of bank statements that no webhook notified.

Posting a line is to store a webhook of source `statement`, which a worker applies like any other. Its
operation id follows from the line, so that the unique key of the inbox refuses a second one.

The locks of the lines' organizations are held from the last check that the bank has not notified the payment
until the commit. Any webhook that is applied later finds the new one, and is merged into it
(worker/merging.py).
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import date, datetime
from datetime import time as time_of_day
from uuid import UUID, uuid5

from django.conf import settings
from django.db import transaction

from core.days import is_plausible
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
from ledger.inn import UNKNOWN_ACCOUNT, is_suspense
from ledger.posting import try_lock
from ledger.terms import PaymentTerms
from statements import day_totals, webhook_terms
from statements.models import (
    ActionItem,
    Bucket,
    Match,
    MatchKey,
    StatementLine,
)
from statements.posting_conditions import WITHOUT_NUMBER, refusals

Refusal = ActionItem.Refusal
_NAMESPACE_STATEMENT = UUID("5d1b9e6c-3f0a-4a3e-8a52-71c4c0f2b9d7")


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
    refused = refusals({operation_id(line): line for line in lines.values()}, now)
    _post([line for line in lines.values() if line.pk not in refused], action)
    return {item.pk: refused[item.line_id] for item in items if item.line_id in refused}


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
            day=_day(line),
            booked_on=line.booked_on,
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
    day_totals.drop({(line.account_id, line.booked_on) for line in lines})
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
    at = datetime.combine(_day(line), time_of_day(), settings.STATEMENT_TIME_ZONE)
    number = line.number or WITHOUT_NUMBER
    return PaymentTerms(operation_id(line), line.inn or "", line.kopecks, number, at)


def _day(line: StatementLine) -> date:
    """Return the day of the payment: a document may have 1C's empty date."""
    return line.date if is_plausible(line.date) else line.booked_on


def _keys(by_webhook: Mapping[int, StatementLine]) -> Iterator[MatchKey]:
    for key, line in by_webhook.items():
        yield MatchKey(
            webhook_id=key,
            notified_inn=line.inn or "",
            inn=line.inn or "",
            kopecks=line.kopecks,
            number_key=number_key(line.number or WITHOUT_NUMBER),
            digits_key=digits_key(line.number or WITHOUT_NUMBER),
            day=_day(line),
            state=MatchKey.State.UNPOSTED,
            bucket=Bucket.MATCHED,
        )
