"""When a line of a bank statement may be posted.

All lines of a chunk are checked by a few queries together: the locks of all accounts and payers are held.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from datetime import time as time_of_day
from uuid import UUID

from django.conf import settings
from django.db.models import Exists, OuterRef, Q

from core.days import shifted
from ingest.models import Webhook
from ingest.number_keys import digits_key
from ledger import corrections
from ledger.inn import UNKNOWN_ACCOUNT, is_suspense
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


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A webhook that may be the payment of a line with its amount and digits."""

    webhook: int
    payers: frozenset[str]
    day: date


Terms = tuple[int, str | None]  # kopecks and the number's digits


def refusals(lines: Mapping[UUID, StatementLine], now: datetime) -> dict[int, Refusal]:
    """Return why lines may not be posted, by their keys. `lines` are by their operation ids.

    The caller holds the locks of all own accounts and of the payers, and has added all webhooks to MatchKey.
    """
    unposted = {key: line for key, line in lines.items() if line.bucket in POSTABLE}
    posted = set(Webhook.objects.filter(operation_id__in=unposted).values_list("operation_id", flat=True))
    shown, known = proven(unposted.values()), notified(unposted.values())

    def refusal(operation_id: UUID, line: StatementLine) -> Refusal:
        if line.bucket not in POSTABLE:
            return Refusal.CHANGED
        if line.pk not in shown:
            return Refusal.UNPROVEN
        if now < postable_from(line.booked_on):
            return Refusal.TOO_EARLY
        if operation_id in posted:
            return Refusal.EXISTS
        return Refusal.NOTIFIED if line.pk in known else Refusal.NONE

    found = {line.pk: refusal(operation_id, line) for operation_id, line in lines.items()}
    return {key: reason for key, reason in found.items() if reason}


def is_proven(line: StatementLine) -> bool:
    return line.pk in proven([line])


def proven(lines: Collection[StatementLine]) -> set[int]:
    """Return the lines that a statement has which proves the account, on a day that was over."""
    seen_in = LineSighting.objects.filter(line=OuterRef(OuterRef("pk"))).values("statement")
    of_day = StatementBalance.objects.filter(
        PROVEN,
        account=OuterRef("account"),
        first_day__lte=OuterRef("booked_on"),
        finished_day__gte=OuterRef("booked_on"),
        last_day__gte=OuterRef("booked_on"),
        statement__in=seen_in,
    )
    found = StatementLine.objects.filter(Exists(of_day), pk__in=[line.pk for line in lines])
    return set(found.values_list("pk", flat=True))


def postable_from(day: date) -> datetime:
    """Return when payments of `day` may be posted: banks repeat a webhook for up to a day."""
    end = datetime.combine(shifted(day, 1), time_of_day(), settings.STATEMENT_TIME_ZONE)
    return end + timedelta(hours=settings.STATEMENT_POST_AFTER_HOURS)


def notified(lines: Collection[StatementLine]) -> set[int]:
    """Return the lines whose payment a webhook may be that no other line explains, applied or not.

    A webhook whose match with this line an operator has undone is another payment.
    """
    candidates = _candidates(lines)
    may_count = _may_count({found.webhook for of_terms in candidates.values() for found in of_terms})
    explained: dict[int, set[int | None]] = defaultdict(set)  # lines by webhook; None: its match is live
    matches = Match.objects.filter(Q(live=True) | Q(line__in=lines), webhook__in=may_count)
    for webhook, line, live in matches.values_list("webhook_id", "line_id", "live"):
        explained[webhook].add(None if live else line)
    return {
        line.pk
        for line in lines
        for found in candidates[_terms(line)]
        if found.webhook in may_count
        and not explained[found.webhook] & {None, line.pk}
        and found.payers & _payers(line)
        and any(abs((found.day - day).days) <= NEAR_DAYS_MAX for day in (line.date, line.booked_on))
    }


def _terms(line: StatementLine) -> Terms:
    return line.kopecks, digits_key(line.number or WITHOUT_NUMBER)


def _payers(line: StatementLine) -> set[str]:
    """Return the INNs under which a source may have notified the line's payment."""
    inn = line.inn or ""
    return {inn, UNKNOWN_ACCOUNT} if is_suspense(inn) else {inn}


def _candidates(lines: Collection[StatementLine]) -> dict[Terms, list[_Candidate]]:
    """Return the webhooks with amount and digits of these lines."""
    by_terms: dict[Terms, list[_Candidate]] = defaultdict(list)
    if not lines:
        return by_terms
    terms = {_terms(line) for line in lines}
    days = [day for line in lines for day in (line.date, line.booked_on)]
    keys = MatchKey.objects.filter(
        kopecks__in={kopecks for kopecks, _ in terms},
        digits_key__in={digits for _, digits in terms},
        day__range=(shifted(min(days), -NEAR_DAYS_MAX), shifted(max(days), NEAR_DAYS_MAX)),
    )
    columns = ("kopecks", "digits_key", "webhook_id", "inn", "notified_inn", "day")
    for kopecks, digits, webhook, inn, notified_inn, day in keys.values_list(*columns):
        by_terms[kopecks, digits].append(_Candidate(webhook, frozenset({inn, notified_inn}), day))
    return by_terms


def _may_count(webhooks: Collection[int]) -> set[int]:
    """Return the webhooks that have changed a balance or still may."""
    closed = [Webhook.Status.DISMISSED, Webhook.Status.MERGED]
    found = Webhook.objects.filter(pk__in=webhooks).exclude(status__in=closed)
    rows = list(found.values_list("pk", "status", "operation_id"))
    applied = [operation for _, status, operation in rows if status == Webhook.Status.APPLIED]
    states: Iterator[tuple[UUID, bool]] = ((each, undone) for each, _, undone in corrections.states(applied))
    reversed_ones = {operation for operation, undone in states if undone}
    return {pk for pk, _, operation in rows if operation not in reversed_ones}
