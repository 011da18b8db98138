"""What readers ask of the ledger. Each costs a number of index look-ups that hardly grows with the log."""

from datetime import datetime, timedelta
from itertools import takewhile

from django.db.models import OuterRef, QuerySet

from core.db import clock
from ledger.models import BalanceLog, Organization

FAN_OUT = 32  # places of a log looked at in one query: four queries find a moment in a million lines
TIME_RESOLUTION = timedelta(microseconds=1)  # the resolution of created_at
# Longer than a posting takes from its time to its commit: six statements at most, each sent within
# wait_timeout, 60 s, and answered within read_timeout, 30 s (config/env.py).
SETTLED_AFTER = timedelta(minutes=10)
SEQ_MAX = 2**63 - 1


def find_organization(inn: str) -> Organization | None:
    return Organization.objects.filter(inn=inn).first()


def balance_at(organization: Organization, at: datetime) -> int:
    """Kopecks: the balance after all lines of that instant, 0 where the log hadn't begun."""
    return balance_after(organization, last_seq_at(organization, at))


def is_settled(organization: Organization, at: datetime) -> bool:
    """Return whether no line can be added to the log any more with a time of `at` or before.

    A later line proves it, since the times of a log never decrease. Without one, a posting that took its time
    by then may be uncommitted still. Ask this before what it is said of, not afterwards.
    """
    if at < clock.database_now() - SETTLED_AFTER:
        return True
    newest = organization.log.filter(seq=organization.last_seq).values_list("created_at", flat=True)
    return any(created_at > at for created_at in newest)  # here: at its offset `at` may be no moment in UTC


def history(
    organization: Organization,
    *,
    limit: int,
    before: int | None = None,
    after: int | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[BalanceLog]:
    """Up to `limit` log lines with their payments, newest first.

    Of those with a smaller seq than `before`, the newest; of those with a larger one than `after`, the
    oldest. Only those written at `since` or later, and earlier than `until`.
    """
    oldest, newest = seq_range(organization, since, until)
    if before is not None:
        newest = min(newest, before - 1)
    if after is not None:
        oldest = max(oldest, after + 1)
        newest = min(newest, oldest + limit - 1)
    return list(entries(organization, max(oldest, newest - limit + 1), newest).order_by("-seq"))


def seq_range(organization: Organization, since: datetime | None, until: datetime | None) -> tuple[int, int]:
    """The oldest and the newest line's seq of those written at `since` or later, and earlier than `until`.

    None: since the beginning, until the newest that `organization`, just read, knows. Without such lines the
    first is the second + 1.
    """
    oldest = 1 if since is None else last_seq_at(organization, since - TIME_RESOLUTION) + 1
    newest = organization.last_seq if until is None else last_seq_at(organization, until - TIME_RESOLUTION)
    return oldest, newest


def entries(organization: Organization, oldest: int, newest: int) -> QuerySet[BalanceLog]:
    """The log lines with these two seqs and those between, each with its payment."""
    # Both ends, because seq has no gaps, and because with one end and a LIMIT MariaDB looks the
    # organization up and reads its log from the newest line down to the page.
    return organization.log.filter(seq__gte=oldest, seq__lte=newest).select_related("payment")


def balance_after(organization: Organization, seq: int) -> int:
    """Kopecks: the balance right after that line, 0 before the first."""
    if seq == 0:
        return 0
    line = organization.log.filter(seq=seq)
    return line.values_list("balance_after_kopecks", flat=True).first() or 0


def last_seq_at(organization: Organization, at: datetime) -> int:
    """The seq of the newest line written at `at` or before, 0 if there is none.

    Lines are written in the order of seq, under the organization's lock, and get their time there, none an
    earlier one than the line before. So the place is found by narrowing it down, through the unique key, and
    inserting pays for no index by time. Lines of earlier releases have the times of workers whose clocks may
    disagree; those as near to each other as that count as written in some order, and always in the same:
    which places are looked at does not depend on how long the log became.
    """
    found, step = 0, 1
    while step * FAN_OUT <= organization.last_seq:
        step *= FAN_OUT
    while step:
        places = [found + step * n for n in range(1, FAN_OUT)]
        times = organization.log.filter(seq__in=places).order_by("seq").values_list("created_at", flat=True)
        found += step * len(list(takewhile(at.__ge__, times)))
        step //= FAN_OUT
    return found


def last_entry() -> QuerySet[BalanceLog]:
    """For a subquery by organization: its log, the newest line first.

    Ordered by both columns of the index: by `seq` alone MySQL reads and sorts the whole log.
    """
    return BalanceLog.objects.filter(organization=OuterRef("pk")).order_by("-organization_id", "-seq")
