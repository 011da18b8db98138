"""Pages of lines and of webhooks, by key: each costs the same, however many rows are before it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from operator import attrgetter
from typing import Any

from django.db.models import Q, QuerySet

from statements import buckets
from statements.buckets import Scope
from statements.models import Bucket, OwnAccount, StatementLine

PAGE_ROWS = 50


@dataclass(frozen=True, slots=True)
class Cursor:
    """The row after which a page begins, or with `is_before` before which it ends."""

    day: date
    key: int
    is_before: bool = False

    def __str__(self) -> str:
        return f"{'-' if self.is_before else ''}{self.day.isoformat()}.{self.key}"


@dataclass(frozen=True, slots=True)
class Page:
    """Rows in order of day and key, and the cursors of the pages next to it, if there are any."""

    rows: Sequence[Any]
    previous: Cursor | None = None
    next: Cursor | None = None


def parse_cursor(text: str) -> Cursor | None:
    """Return the cursor of its text, None if it is none."""
    day, _, key = text.removeprefix("-").partition(".")
    if not (key.isascii() and key.isdigit() and len(key) < 19):
        return None
    try:
        return Cursor(date.fromisoformat(day), int(key), text.startswith("-"))
    except ValueError:
        return None


def lines_page(scope: Scope, bucket: Bucket | None, cursor: Cursor | None) -> Page:
    """Return a page of the lines of `scope`, in one bucket or all."""
    # No join: the server would begin at the account, and sort all lines for a page of them.
    found = (lines.prefetch_related("account") for lines in _lines(scope, bucket))
    return _page(list(found), "booked_on", cursor)


def webhooks_page(scope: Scope, bucket: Bucket, cursor: Cursor | None) -> Page:
    """Return a page of the webhooks of `scope` that no line explains, in `bucket`."""
    found = buckets.webhooks(scope, bucket).select_related("webhook").defer("webhook__body")
    return _page([found], "day", cursor)


def _lines(scope: Scope, bucket: Bucket | None) -> Iterator[QuerySet[StatementLine]]:
    """Yield the lines, of all accounts one after the other, because an index has their days."""
    if bucket:
        yield buckets.lines(scope, bucket)
        return
    accounts = OwnAccount.objects.filter(**({"number": scope.account} if scope.account else {}))
    for account in accounts:
        yield StatementLine.objects.filter(scope.days("booked_on"), account=account)


def _page(parts: Sequence[QuerySet[Any]], day: str, cursor: Cursor | None) -> Page:
    is_before = cursor is not None and cursor.is_before
    order = [f"-{day}", "-pk"] if is_before else [day, "pk"]
    where = _beyond(day, cursor) if cursor else Q()
    found = [row for part in parts for row in part.filter(where).order_by(*order)[: PAGE_ROWS + 1]]
    found.sort(key=attrgetter(day, "pk"), reverse=is_before)
    rows, has_more = found[:PAGE_ROWS], len(found) > PAGE_ROWS
    if is_before:
        rows.reverse()
    if not rows:
        return Page([])
    first, last = rows[0], rows[-1]
    has_previous = has_more if is_before else cursor is not None
    has_next = is_before or has_more
    return Page(
        rows,
        Cursor(getattr(first, day), first.pk, is_before=True) if has_previous else None,
        Cursor(getattr(last, day), last.pk) if has_next else None,
    )


def _beyond(day: str, cursor: Cursor) -> Q:
    """The first condition is implied by the second, and lets an index find the beginning."""
    side = "lt" if cursor.is_before else "gt"
    same_day = Q(**{day: cursor.day, f"pk__{side}": cursor.key})
    return Q(**{f"{day}__{side}e": cursor.day}) & (Q(**{f"{day}__{side}": cursor.day}) | same_day)
