"""The throughput charts as inline SVG, without scripts and style attributes; CSS sets colours by class.

Received webhooks are a line over bars of applied ones. Where the line follows the bars' tops, throughput
keeps up.
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

WIDTH, LEFT, RIGHT = 640, 46, 632  # SVG user units


@dataclass(frozen=True)
class Bucket:
    """Consecutive minutes and their average throughput; None if none of them was counted."""

    started_at: datetime
    duration: timedelta
    per_minute: tuple[float, float] | None  # received, applied


def buckets(minutes: dict[datetime, MinuteCounts | None], size: int) -> list[Bucket]:
    """Group by `size` minutes, aligned to the clock, oldest first; averages skip uncounted minutes."""
    chunks: dict[datetime, list[MinuteCounts | None]] = {}
    for minute, counts in minutes.items():
        chunks.setdefault(minute.replace(minute=minute.minute - minute.minute % size), []).append(counts)
    return [Bucket(started_at, timedelta(minutes=size), _mean(chunk)) for started_at, chunk in chunks.items()]


def _mean(counts: Sequence[MinuteCounts | None]) -> tuple[float, float] | None:
    known = [one for one in counts if one is not None]
    if not known:
        return None
    received, applied = zip(*known, strict=True)
    return sum(received) / len(known), sum(applied) / len(known)


def axis_max(value: float) -> int:
    """Return the next of 2, 4, 10, 20, 40, 100, …, whose half is an integer too."""
    power = 1
    while True:
        for step in (2, 4):
            if value <= step * power:
                return step * power
        power *= 10
        if value <= power:
            return power


def throughput_chart(points: Sequence[Bucket], *, tick_minutes: int, label: str) -> SafeString:
    """Return the chart with a time label every `tick_minutes`; `label` is its text for screen readers."""
    highest = axis_max(max((max(p.per_minute) for p in points if p.per_minute), default=0))
    drawing = format_html(
        '{}{}<path class="applied" d="{}"/><path class="received" d="{}"/>{}',
        _grid(highest),
        _times(points, tick_minutes),
        _bars(points, highest),
        _line(points, highest),
        _tooltips(points),
    )
    return svg("throughput", label, drawing, width=WIDTH)


def _x(index: int, of: int) -> float:
    return round(LEFT + (RIGHT - LEFT) * index / of, 2)


def _y(value: float, highest: int) -> float:
    return round(BOTTOM - (BOTTOM - TOP) * value / highest, 2)


def _grid(highest: int) -> SafeString:
    levels = [(_y(value, highest), group_digits(value)) for value in (0, highest // 2, highest)]
    return format_html_join(
        "",
        '<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>'
        '<text class="level" x="{}" y="{}" text-anchor="end">{}</text>',
        ((LEFT, RIGHT, y, y, LEFT - 6, y + 4, text) for y, text in levels),
    )


def _times(points: Sequence[Bucket], tick_minutes: int) -> SafeString:
    ticks = [
        (_x(index, len(points)), f"{local:%H:%M}")
        for index, point in enumerate(points)
        if (local := timezone.localtime(point.started_at))
        and (local.hour * 60 + local.minute) % tick_minutes == 0
    ]
    return time_ticks(ticks, LEFT + 8, RIGHT - 14)


def _bars(points: Sequence[Bucket], highest: int) -> str:
    """Return the outline of all bars as one path."""
    path = []
    for index, point in enumerate(points):
        if point.per_minute and point.per_minute[1]:
            x, end, y = _x(index, len(points)), _x(index + 1, len(points)), _y(point.per_minute[1], highest)
            gap = (end - x) * 0.08
            path.append(f"M{x + gap:.2f} {BOTTOM}V{y}H{end - gap:.2f}V{BOTTOM}Z")
    return "".join(path)


def _line(points: Sequence[Bucket], highest: int) -> str:
    """Return steps as wide as the bars, interrupted at uncounted buckets."""
    path, command = [], "M"
    for index, point in enumerate(points):
        if point.per_minute is None:
            command = "M"
            continue
        x, end, y = _x(index, len(points)), _x(index + 1, len(points)), _y(point.per_minute[0], highest)
        path.append(f"{command}{x} {y}H{end}")
        command = "L"
    return "".join(path)


def _tooltips(points: Sequence[Bucket]) -> SafeString:
    width = round((RIGHT - LEFT) / len(points), 2)
    return tooltips(
        (
            "tip" if point.per_minute else "tip uncounted",  # the latter is visible without a pointer too
            _x(index, len(points)),
            width,
            _tooltip(point),
        )
        for index, point in enumerate(points)
    )


def _tooltip(point: Bucket) -> str:
    when = f"{timezone.localtime(point.started_at):%H:%M}"
    if point.duration > timedelta(minutes=1):
        end = f"{timezone.localtime(point.started_at + point.duration):%H:%M}"
        when = _("{begin}–{end}, per minute").format(begin=when, end=end)
    if point.per_minute is None:
        return _("{when}: not counted").format(when=when)
    received, applied = map(_format_rate, point.per_minute)
    text = _("{when}: {received} received, {applied} applied")
    return text.format(when=when, received=received, applied=applied)


def _format_rate(per_minute: float) -> str:
    return group_digits(round(per_minute)) if per_minute >= 10 else number_format(f"{per_minute:.2g}")
