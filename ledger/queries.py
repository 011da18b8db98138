"""Read queries of the ledger. Each costs a number of index lookups that hardly grows with the log."""

from datetime import datetime, timedelta
from itertools import takewhile
from typing import NamedTuple
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS
from django.db.models import OuterRef, QuerySet, Sum

from core.db import clock
from ledger.models import BalanceLog, Organization

FAN_OUT = 32  # entries read by one query of the search by time: four queries for a million entries
TIME_RESOLUTION = timedelta(microseconds=1)  # of created_at
# Longer than a posting takes from its time to its commit: six statements at most, each sent within
# wait_timeout, 60 s, and answered within read_timeout, 30 s (config/env.py).
SETTLED_AFTER = timedelta(minutes=10)
SEQ_MAX = 2**63 - 1


class HistoryRow(NamedTuple):
    """What the history API shows of an entry; three model instances for each would cost twice the time."""

    amount_kopecks: int
    created_at: datetime
    balance_after_kopecks: int
    seq: int
    operation_id: UUID
    document_number: str
    document_date: datetime
    reverses: UUID | None  # the operation that the payment reverses


_HISTORY_COLUMNS = (
    *("amount_kopecks", "created_at", "balance_after_kopecks", "seq"),
    *("payment__operation_id", "payment__document_number", "payment__document_date"),
    "payment__reverses__operation_id",
)


def find_organization(inn: str, using: str = DEFAULT_DB_ALIAS) -> Organization | None:
    """Return the organization from the database `using`, where the queries about it then read, too."""
    return Organization.objects.using(using).filter(inn=inn).first()


def balance_at(organization: Organization, at: datetime) -> int:
    """Return the balance in kopecks after all entries of that instant, 0 before the first entry."""
    return balance_after(organization, last_seq_at(organization, at))


def is_settled(organization: Organization, at: datetime) -> bool:
    """Return whether no entry with a time of `at` or earlier can be added to the log any more.

    A later entry proves it, since the times of a log never decrease. Without one, a posting that read its
    time by then may be uncommitted still. Call this before the query it is about, not afterwards.
    """
    if at < clock.database_now() - SETTLED_AFTER:
        return True
    last = organization.log.filter(seq=organization.last_seq).values_list("created_at", flat=True)
    # Compared in Python: with its offset, `at` may lie outside the range of UTC datetimes.
    return any(created_at > at for created_at in last)


def history(
    organization: Organization,
    *,
    limit: int,
    before: int | None = None,
    after: int | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[HistoryRow]:
    """Return up to `limit` entries with their payments, newest first.

    `before` and `after` are exclusive seqs: `before` selects the newest entries below it, `after` the oldest
    above it. `since` is inclusive, `until` exclusive.
    """
    first, last = seq_range(organization, since, until)
    if before is not None:
        last = min(last, before - 1)
    if after is not None:
        first = max(first, after + 1)
        last = min(last, first + limit - 1)
    page = entries(organization, max(first, last - limit + 1), last).order_by("-seq")
    return [HistoryRow(*row) for row in page.values_list(*_HISTORY_COLUMNS)]


def seq_range(organization: Organization, since: datetime | None, until: datetime | None) -> tuple[int, int]:
    """Return the first and the last seq of the entries written at `since` or later, and before `until`.

    None means the beginning of the log, and its end as `organization`, just read, knows it. If there are no
    such entries, the first seq is the last + 1.
    """
    first = 1 if since is None else last_seq_at(organization, since - TIME_RESOLUTION) + 1
    last = organization.last_seq if until is None else last_seq_at(organization, until - TIME_RESOLUTION)
    return first, last


def entries(organization: Organization, first: int, last: int) -> QuerySet[BalanceLog]:
    """Return the entries from seq `first` to seq `last`, each with its payment and the one it reverses."""
    # Both bounds, because seq has no gaps, and because with one bound and a LIMIT MariaDB looks up the
    # organization and reads its log from the last entry down to the page.
    return organization.log.filter(seq__gte=first, seq__lte=last).select_related("payment__reverses")


def reversed_sum(organization: Organization, first: int, last: int) -> int:
    """Return the sum in kopecks of the payments taken back by the entries from seq `first` to seq `last`.

    Read through the index of the organization's reversals, which are few, instead of its log.
    """
    reversals = organization.payments.filter(reverses__isnull=False)
    of_period = reversals.filter(log_entry__seq__gte=first, log_entry__seq__lte=last)
    total: int = of_period.aggregate(sum=Sum("amount_kopecks", default=0))["sum"]
    return total


def balance_after(organization: Organization, seq: int) -> int:
    """Return the balance in kopecks right after the entry `seq`, 0 for seq 0."""
    if seq == 0:
        return 0
    entry = organization.log.filter(seq=seq)
    return entry.values_list("balance_after_kopecks", flat=True).first() or 0


def last_seq_at(organization: Organization, at: datetime) -> int:
    """Return the seq of the last entry written at `at` or before, 0 if there is none.

    Entries are written in the order of seq, under the organization's lock, and get their time there, never an
    earlier one than the entry before. So a FAN_OUT-way search through the unique key finds the seq, and no
    insert pays for an index by time. Entries of earlier releases have the times of workers whose clocks may
    disagree. Among entries that close to each other the result is one possible order, and always the same:
    which entries the search reads does not depend on the length of the log.
    """
    found, step = 0, 1
    while step * FAN_OUT <= organization.last_seq:
        step *= FAN_OUT
    while step:
        seqs = [found + step * n for n in range(1, FAN_OUT)]
        times = organization.log.filter(seq__in=seqs).order_by("seq").values_list("created_at", flat=True)
        found += step * len(list(takewhile(at.__ge__, times)))
        step //= FAN_OUT
    return found


def last_entry() -> QuerySet[BalanceLog]:
    """Return a subquery for an organization's log, last entry first.

    Ordered by both columns of the index: by `seq` alone MySQL reads and sorts the whole log.
    """
    return BalanceLog.objects.filter(organization=OuterRef("pk")).order_by("-organization_id", "-seq")
