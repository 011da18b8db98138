"""A period's statement: opening balance, entries, turnover and closing balance.

Its bounds are fixed once, as two seqs. Entries between them never change and none can be added between them,
so opening + turnover = closing holds while workers go on posting.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from core.db import clock
from ledger import queries
from ledger.models import BalanceLog, Organization

PAGE_ENTRIES = 50
CHUNK_ENTRIES = 1000  # read by one query of a download
CHART_POINTS_MAX = 100


@dataclass(frozen=True)
class Period:
    """Whole days of one time zone, the last one included. None leaves an end open."""

    first: date | None
    last: date | None
    zone: tzinfo

    @property
    def since(self) -> datetime | None:
        return self._midnight(self.first) if self.first else None

    @property
    def until(self) -> datetime | None:
        """The first instant after the period."""
        return self._midnight(self.last + timedelta(days=1)) if self.last else None

    def _midnight(self, day: date) -> datetime:
        """Return the midnight in UTC, since arithmetic in local time is ambiguous where clocks go back."""
        return datetime.combine(day, time(), tzinfo=self.zone).astimezone(UTC)


@dataclass(frozen=True)
class Statement:
    """The entries from `first_seq` to `last_seq`; none if `first_seq` is last_seq + 1. Amounts in kopecks."""

    organization: Organization
    period: Period
    first_seq: int
    last_seq: int
    opening: int
    closing: int
    reversed: int  # the sum of the reversals, as a positive amount
    read_at: datetime  # by the database's clock
    is_settled: bool  # no entry can be added to the period any more

    @property
    def turnover(self) -> int:
        """The sum of the amounts, as the difference of the balances (verify_ledger proves they agree)."""
        return self.closing - self.opening

    @property
    def credited(self) -> int:
        return self.turnover + self.reversed

    @property
    def count(self) -> int:
        return self.last_seq - self.first_seq + 1

    def page(self, before: int | None = None) -> list[BalanceLog]:
        """Return up to PAGE_ENTRIES entries, newest first; with `before`, those of a smaller seq."""
        last = self.last_seq if before is None else min(self.last_seq, before - 1)
        first = max(self.first_seq, last - PAGE_ENTRIES + 1)
        return list(queries.entries(self.organization, first, last).order_by("-seq"))

    def entries(self) -> Iterator[BalanceLog]:
        """Yield all entries, oldest first, with at most CHUNK_ENTRIES in memory."""
        for first in range(self.first_seq, self.last_seq + 1, CHUNK_ENTRIES):
            last = min(self.last_seq, first + CHUNK_ENTRIES - 1)
            yield from queries.entries(self.organization, first, last).order_by("seq")

    def chart_entries(self) -> list[BalanceLog]:
        """Return up to CHART_POINTS_MAX entries at equal distances up to the last one, oldest first."""
        step = -(-self.count // CHART_POINTS_MAX) or 1
        seqs = range(self.last_seq, self.first_seq - 1, -step)
        return list(self.organization.log.filter(seq__in=list(seqs)).order_by("seq"))

    @property
    def begin(self) -> datetime:
        """The beginning of the period, or of the organization if that is later."""
        opened_at = self.organization.opened_at
        return max(self.period.since or opened_at, opened_at)

    @property
    def first_day(self) -> date:
        return self.period.first or self.begin.astimezone(self.period.zone).date()

    @property
    def last_day(self) -> date:
        return self.period.last or self.end.astimezone(self.period.zone).date()

    @property
    def end(self) -> datetime:
        """The last instant of the period, or the time of reading if that is earlier."""
        until = self.period.until
        return min(until - queries.TIME_RESOLUTION, self.read_at) if until else self.read_at


def make_statement(organization: Organization, period: Period) -> Statement:
    """Return the statement of the log up to the `last_seq` of `organization`, just read."""
    now, until = clock.database_now(), period.until
    is_settled = until is not None and queries.is_settled(organization, until - queries.TIME_RESOLUTION)
    first, last = queries.seq_range(organization, period.since, until)
    return Statement(
        organization,
        period,
        first,
        last,
        opening=queries.balance_after(organization, first - 1),
        closing=queries.balance_after(organization, last),
        reversed=queries.reversed_sum(organization, first, last),
        read_at=now,
        is_settled=is_settled,
    )
