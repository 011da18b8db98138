"""Charts as inline SVG without script or style attribute; the style sheet colours them by class."""

from collections.abc import Iterable

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

HEIGHT = 190
TOP, BOTTOM = 12, 166  # of the plot, in units of the view box


def svg(css_class: str, label: str, drawing: SafeString, *, width: int) -> SafeString:
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


def tooltips(told: Iterable[tuple[str, float, float, str]]) -> SafeString:
    """What a pointer is told over each strip of the plot: (class, x, width, text)."""
    return format_html_join(
        "",
        '<rect class="{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>',
        ((css_class, x, TOP, width, BOTTOM - TOP, text) for css_class, x, width, text in told),
    )
