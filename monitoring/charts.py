"""Charts as inline SVG: no script, no style attribute; colours come from the page's style sheet by class.

What was received is a line over what was applied, in bars: as long as the line runs along their tops,
everything that comes is applied.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone
from django.utils.formats import number_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from core.svg import BOTTOM, TOP, svg, time_ticks, tooltips
from ledger.money import group_digits
from monitoring.throughput import MinuteCounts

WIDTH, LEFT, RIGHT = 640, 46, 632  # in the units of ledger/admin/balance_chart.py


@dataclass(frozen=True)
class Bucket:
    """Some minutes in a row, and how much there was a minute on average; None: not counted."""

    started_at: datetime
    lasts: timedelta
    per_minute: tuple[float, float] | None  # received, applied


def buckets(minutes: dict[datetime, MinuteCounts | None], each: int) -> list[Bucket]:
    """So many minutes in each, as the clock has them, oldest first; what wasn't counted doesn't count."""
    chunks: dict[datetime, list[MinuteCounts | None]] = {}
    for minute, counted in minutes.items():
        chunks.setdefault(minute.replace(minute=minute.minute - minute.minute % each), []).append(counted)
    return [Bucket(started_at, timedelta(minutes=each), _mean(chunk)) for started_at, chunk in chunks.items()]


def _mean(counted: Sequence[MinuteCounts | None]) -> tuple[float, float] | None:
    known = [one for one in counted if one is not None]
    if not known:
        return None
    received, applied = zip(*known, strict=True)
    return sum(received) / len(known), sum(applied) / len(known)


def axis_max(value: float) -> int:
    """The next of 2, 4, 10, 20, 40, 100, …, so that half of it is a whole number, too."""
    power = 1
    while True:
        for step in (2, 4):
            if value <= step * power:
                return step * power
        power *= 10
        if value <= power:
            return power


def throughput_chart(points: Sequence[Bucket], *, tick_minutes: int, label: str) -> SafeString:
    """The chart of some buckets, with a time below each `tick_minutes`; `label` says what it shows."""
    highest = axis_max(max((max(p.per_minute) for p in points if p.per_minute), default=0))
    drawing = format_html(
        '{}{}<path class="applied" d="{}"/><path class="received" d="{}"/>{}',
        _levels(highest),
        _times(points, tick_minutes),
        _bars(points, highest),
        _line(points, highest),
        _tips(points),
    )
    return svg("flow", label, drawing, width=WIDTH)


def _x(number: int, of: int) -> float:
    return round(LEFT + (RIGHT - LEFT) * number / of, 2)


def _y(value: float, highest: int) -> float:
    return round(BOTTOM - (BOTTOM - TOP) * value / highest, 2)


def _levels(highest: int) -> SafeString:
    """Grid lines, each with its number."""
    levels = [(_y(value, highest), group_digits(value)) for value in (0, highest // 2, highest)]
    return format_html_join(
        "",
        '<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>'
        '<text class="level" x="{}" y="{}" text-anchor="end">{}</text>',
        ((LEFT, RIGHT, y, y, LEFT - 6, y + 4, text) for y, text in levels),
    )


def _times(points: Sequence[Bucket], tick_minutes: int) -> SafeString:
    ticks = [
        (_x(number, len(points)), f"{local:%H:%M}")
        for number, point in enumerate(points)
        if (local := timezone.localtime(point.started_at))
        and (local.hour * 60 + local.minute) % tick_minutes == 0
    ]
    return time_ticks(ticks, LEFT + 8, RIGHT - 14)


def _bars(points: Sequence[Bucket], highest: int) -> str:
    """The outline of all bars, as one path."""
    path = []
    for number, point in enumerate(points):
        if point.per_minute and point.per_minute[1]:
            x, end, y = _x(number, len(points)), _x(number + 1, len(points)), _y(point.per_minute[1], highest)
            gap = (end - x) * 0.08
            path.append(f"M{x + gap:.2f} {BOTTOM}V{y}H{end - gap:.2f}V{BOTTOM}Z")
    return "".join(path)


def _line(points: Sequence[Bucket], highest: int) -> str:
    """Steps as wide as the bars, interrupted where nothing was counted."""
    path, command = [], "M"
    for number, point in enumerate(points):
        if point.per_minute is None:
            command = "M"
            continue
        x, end, y = _x(number, len(points)), _x(number + 1, len(points)), _y(point.per_minute[0], highest)
        path.append(f"{command}{x} {y}H{end}")
        command = "L"
    return "".join(path)


def _tips(points: Sequence[Bucket]) -> SafeString:
    """What a pointer is told over each bucket. Those that weren't counted are seen without one, too."""
    width = round((RIGHT - LEFT) / len(points), 2)
    return tooltips(
        ("tip" if point.per_minute else "tip uncounted", _x(number, len(points)), width, _told(point))
        for number, point in enumerate(points)
    )


def _told(point: Bucket) -> str:
    when = f"{timezone.localtime(point.started_at):%H:%M}"
    if point.lasts > timedelta(minutes=1):
        until = f"{timezone.localtime(point.started_at + point.lasts):%H:%M}"
        when = _("{begin}–{end}, a minute").format(begin=when, end=until)
    if point.per_minute is None:
        return _("{when}: not counted").format(when=when)
    received, applied = map(_count, point.per_minute)
    text = _("{when}: {received} received, {applied} applied")
    return text.format(when=when, received=received, applied=applied)


def _count(per_minute: float) -> str:
    return group_digits(round(per_minute)) if per_minute >= 10 else number_format(f"{per_minute:.2g}")
