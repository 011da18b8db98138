"""The balance of an organization over time, as an SVG step chart."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from core.svg import BOTTOM, TOP, svg, time_ticks, tooltips
from ledger.money import format_rubles

WIDTH, LEFT, RIGHT = 1160, 8, 1152  # amounts of any length are drawn inside the plot
LEVELS_MAX = 5
TIME_TICKS = 5


@dataclass(frozen=True)
class Point:
    """The balance from this time until the next point's."""

    at: datetime
    kopecks: int
    tooltip: str


def render(points: Sequence[Point], end: datetime) -> SafeString:
    """Return the chart of `points`, oldest first, until `end`."""
    begin = points[0].at
    span = max(end - begin, timedelta(microseconds=1))

    def x(at: datetime) -> float:
        return round(LEFT + (RIGHT - LEFT) * min(max((at - begin) / span, 0), 1), 2)

    balances = [point.kopecks for point in points]
    levels = levels_between(min(balances), max(balances))

    def y(kopecks: int) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * (kopecks - levels[0]) / (levels[-1] - levels[0]), 2)

    xs = [x(point.at) for point in points] + [RIGHT]
    steps = "".join(f"V{y(point.kopecks)}H{xs[n + 1]}" for n, point in enumerate(points))
    line = f"M{LEFT} {y(points[0].kopecks)}{steps}"
    label = _("The balance from {begin} to {end}: from {opening} to {closing}").format(
        begin=_format_time(begin, span),
        end=_format_time(end, span),
        opening=format_rubles(points[0].kopecks),
        closing=format_rubles(points[-1].kopecks),
    )
    drawing = format_html(
        '{}{}<path class="area" d="{}"/>{}<path class="line" d="{}"/>{}',
        _grid([y(level) for level in levels]),
        time_ticks(
            [(x(at), _format_time(at, span)) for at in _tick_times(begin, span)], LEFT + 36, RIGHT - 36
        ),
        f"{line}V{BOTTOM}H{LEFT}Z" if levels[0] == 0 else "",
        _level_labels([(y(level), format_rubles(level)) for level in levels]),
        line,
        tooltips(
            ("tip", xs[n], max(round(xs[n + 1] - xs[n], 2), 1), point.tooltip)
            for n, point in enumerate(points)
        ),
    )
    return svg("balance", label, drawing, width=WIDTH)


def levels_between(low: int, high: int) -> list[int]:
    """Return round kopecks in equal steps that include `low` and `high`; from 0 unless little changed."""
    if low * 2 < high or low == high:
        low = 0
    step = 1_00
    while True:
        for factor in (1, 2, 5):
            first, last = low // (step * factor), -(-high // (step * factor))
            if last - first < LEVELS_MAX:
                return [n * step * factor for n in range(first, max(last, first + 1) + 1)]
        step *= 10


def _tick_times(begin: datetime, span: timedelta) -> list[datetime]:
    return [begin + span * n / (TIME_TICKS - 1) for n in range(TIME_TICKS)]


def _format_time(at: datetime, span: timedelta) -> str:
    """Return the time as precisely as a chart of that span can be read."""
    if span < timedelta(minutes=10):
        return date_format(timezone.localtime(at), "H:i:s")
    if span < timedelta(days=1):
        return date_format(timezone.localtime(at), "H:i")
    if span < timedelta(days=8):
        return date_format(timezone.localtime(at), "j M H:i")
    return date_format(timezone.localtime(at), "SHORT_DATE_FORMAT")


def _grid(ys: Iterable[float]) -> SafeString:
    return format_html_join(
        "", '<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>', ((LEFT, RIGHT, y, y) for y in ys)
    )


def _level_labels(levels: Iterable[tuple[float, str]]) -> SafeString:
    """Return the amounts above their grid lines, where the longest amount fits; the lowest is the axis."""
    return format_html_join(
        "", '<text class="level" x="{}" y="{}">{}</text>', ((LEFT, y - 4, text) for y, text in levels)
    )
