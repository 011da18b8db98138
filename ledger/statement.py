"""A period's statement: the balance before, what was credited, the balance after, and each line.

Its bounds are decided once, as two seqs. Lines between them are never changed, and no other can come
between: whatever is posted while somebody reads, opening + turnover = closing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from core.db import clock
from ledger import queries
from ledger.models import BalanceLog, Organization

PAGE_ENTRIES = 50
CHUNK_ENTRIES = 1000  # read at once for a download
CHART_POINTS_MAX = 100


@dataclass(frozen=True)
class Period:
    """Whole days of one time zone, the last one included; None: since the beginning, until now."""

    first: date | None
    last: date | None
    zone: tzinfo

    @property
    def since(self) -> datetime | None:
        return self._midnight(self.first) if self.first else None

    @property
    def until(self) -> datetime | None:
        """The instant after the period."""
        return self._midnight(self.last + timedelta(days=1)) if self.last else None

    def _midnight(self, day: date) -> datetime:
        """In UTC: an hour that clocks repeat can't be told apart by arithmetic in the zone's own time."""
        return datetime.combine(day, time(), tzinfo=self.zone).astimezone(UTC)


@dataclass(frozen=True)
class Statement:
    """The lines from `oldest` to `newest`; there are none if `oldest` is newest + 1. Sums in kopecks."""

    organization: Organization
    period: Period
    oldest: int
    newest: int
    opening: int
    closing: int
    read_at: datetime  # by the database's clock
    is_settled: bool  # no line can be added to the period any more

    @property
    def turnover(self) -> int:
        """What was credited. The log is a chain of balances (verify_ledger proves it): no sum is needed."""
        return self.closing - self.opening

    @property
    def count(self) -> int:
        return self.newest - self.oldest + 1

    def page(self, before: int | None = None) -> list[BalanceLog]:
        """Up to PAGE_ENTRIES lines, newest first; with `before`, those of a smaller seq."""
        newest = self.newest if before is None else min(self.newest, before - 1)
        oldest = max(self.oldest, newest - PAGE_ENTRIES + 1)
        return list(queries.entries(self.organization, oldest, newest).order_by("-seq"))

    def lines(self) -> Iterator[BalanceLog]:
        """All, oldest first, however many: only some are in memory at once."""
        for first in range(self.oldest, self.newest + 1, CHUNK_ENTRIES):
            last = min(self.newest, first + CHUNK_ENTRIES - 1)
            yield from queries.entries(self.organization, first, last).order_by("seq")

    def chart_entries(self) -> list[BalanceLog]:
        """Up to CHART_POINTS_MAX lines at equal distances, and the newest, oldest first."""
        step = -(-self.count // CHART_POINTS_MAX) or 1
        places = range(self.newest, self.oldest - 1, -step)
        return list(self.organization.log.filter(seq__in=list(places)).order_by("seq"))

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
        """The last instant of the period, or now if that is to come."""
        until = self.period.until
        return min(until - queries.TIME_RESOLUTION, self.read_at) if until else self.read_at


def make_statement(organization: Organization, period: Period) -> Statement:
    """The statement of the log as far as `organization`, just read, knows it."""
    now, until = clock.database_now(), period.until
    is_settled = until is not None and queries.is_settled(organization, until - queries.TIME_RESOLUTION)
    oldest, newest = queries.seq_range(organization, period.since, until)
    return Statement(
        organization,
        period,
        oldest,
        newest,
        opening=queries.balance_after(organization, oldest - 1),
        closing=queries.balance_after(organization, newest),
        read_at=now,
        is_settled=is_settled,
    )
