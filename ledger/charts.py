"""Charts as inline SVG: no script, no style attribute; colours come from the style sheet by class."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from ledger.money import rubles_text

HEIGHT = 190
TOP, BOTTOM = 12, 166  # of the plot, in the same units; where it begins and ends, each chart decides
WIDTH, LEFT, RIGHT = 1160, 8, 1152  # of the balance's: its sums, as long as they are, stand inside the plot
LEVELS_MAX = 5
TIMES = 5


@dataclass(frozen=True)
class Point:
    """The balance from this moment until the next point's."""

    at: datetime
    kopecks: int
    text: str  # what a pointer is told


def whole(css_class: str, label: str, drawing: SafeString, *, width: int) -> SafeString:
    """The SVG; `label` says what it shows to who doesn't see it."""
    return format_html(
        '<svg class="chart {}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>',
        css_class,
        width,
        HEIGHT,
        label,
        drawing,
    )


def time_ticks(ticks: Iterable[tuple[float, str]], text_min: float, text_max: float) -> SafeString:
    """Below the plot, each at its x; the middle of its text stays between the last two."""
    return format_html_join(
        "",
        '<line class="tick" x1="{}" x2="{}" y1="{}" y2="{}"/>'
        '<text class="time" x="{}" y="{}" text-anchor="middle">{}</text>',
        ((x, x, BOTTOM, BOTTOM + 4, min(max(x, text_min), text_max), BOTTOM + 18, text) for x, text in ticks),
    )


def tips(told: Iterable[tuple[str, float, float, str]]) -> SafeString:
    """What a pointer is told over each strip of the plot: (class, x, width, text)."""
    return format_html_join(
        "",
        '<rect class="{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>',
        ((css_class, x, TOP, width, BOTTOM - TOP, text) for css_class, x, width, text in told),
    )


def balance(points: Sequence[Point], end: datetime) -> SafeString:
    """Steps from the first of `points`, oldest first, until `end`: a balance stays until a payment comes."""
    begin = points[0].at
    span = max(end - begin, timedelta(microseconds=1))

    def x(at: datetime) -> float:
        return round(LEFT + (RIGHT - LEFT) * min(max((at - begin) / span, 0), 1), 2)

    levels = levels_between(points[0].kopecks, points[-1].kopecks)

    def y(kopecks: int) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * (kopecks - levels[0]) / (levels[-1] - levels[0]), 2)

    xs = [x(point.at) for point in points] + [RIGHT]
    steps = "".join(f"V{y(point.kopecks)}H{xs[n + 1]}" for n, point in enumerate(points))
    line = f"M{LEFT} {y(points[0].kopecks)}{steps}"
    label = _("The balance from {begin} to {end}: from {opening} to {closing}").format(
        begin=_moment(begin, span),
        end=_moment(end, span),
        opening=rubles_text(points[0].kopecks),
        closing=rubles_text(points[-1].kopecks),
    )
    drawing = format_html(
        '{}{}<path class="area" d="{}"/>{}<path class="line" d="{}"/>{}',
        _grid([y(level) for level in levels]),
        time_ticks([(x(at), _moment(at, span)) for at in _evenly(begin, span)], LEFT + 36, RIGHT - 36),
        f"{line}V{BOTTOM}H{LEFT}Z" if levels[0] == 0 else "",
        _sums([(y(level), rubles_text(level)) for level in levels]),
        line,
        tips(
            ("tip", xs[n], max(round(xs[n + 1] - xs[n], 2), 1), point.text) for n, point in enumerate(points)
        ),
    )
    return whole("balance", label, drawing, width=WIDTH)


def levels_between(low: int, high: int) -> list[int]:
    """Round kopecks from at most `low` to at least `high`, in equal steps; from 0 unless little changed."""
    if low * 2 < high or low == high:
        low = 0
    step = 1_00
    while True:
        for factor in (1, 2, 5):
            first, last = low // (step * factor), -(-high // (step * factor))
            if last - first < LEVELS_MAX:
                return [n * step * factor for n in range(first, max(last, first + 1) + 1)]
        step *= 10


def _evenly(begin: datetime, span: timedelta) -> list[datetime]:
    return [begin + span * n / (TIMES - 1) for n in range(TIMES)]


def _moment(at: datetime, span: timedelta) -> str:
    """As exact as a chart of that span can be read."""
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


def _sums(levels: Iterable[tuple[float, str]]) -> SafeString:
    """Above their grid lines, where the longest sum has room; the lowest is the axis itself."""
    return format_html_join(
        "", '<text class="level" x="{}" y="{}">{}</text>', ((LEFT, y - 4, text) for y, text in levels)
    )
