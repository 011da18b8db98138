"""Parts of charts as inline SVG, without scripts and style attributes; a style sheet colours the classes."""

from collections.abc import Iterable

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

HEIGHT = 190
TOP, BOTTOM = 12, 166  # of the plot, in the same units; each chart chooses its left and right


def svg(css_class: str, label: str, drawing: SafeString, *, width: int) -> SafeString:
    """Return the SVG element; `label` describes it to screen readers."""
    return format_html(
        '<svg class="chart {}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>',
        css_class,
        width,
        HEIGHT,
        label,
        drawing,
    )


def time_ticks(ticks: Iterable[tuple[float, str]], text_min: float, text_max: float) -> SafeString:
    """Return ticks and texts below the plot, from (x, text); the text's centre is clamped to the bounds."""
    return format_html_join(
        "",
        '<line class="tick" x1="{}" x2="{}" y1="{}" y2="{}"/>'
        '<text class="time" x="{}" y="{}" text-anchor="middle">{}</text>',
        ((x, x, BOTTOM, BOTTOM + 4, min(max(x, text_min), text_max), BOTTOM + 18, text) for x, text in ticks),
    )


def tooltips(strips: Iterable[tuple[str, float, float, str]]) -> SafeString:
    """Return a tooltip for each vertical strip of the plot: (class, x, width, text)."""
    return format_html_join(
        "",
        '<rect class="{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>',
        ((css_class, x, TOP, width, BOTTOM - TOP, text) for css_class, x, width, text in strips),
    )
