"""The figures as a drawing: how far each is on the right side of its bar."""

import math
from collections.abc import Iterator, Sequence
from html import escape

from bench.measurements import Measurement
from bench.report import Run, format_number
from tests.harness.servers import ROOT

PLOT = ROOT / "docs" / "performance.svg"
LABELS, WIDTH, ROW, TOP, BOTTOM = 540, 1080, 26, 46, 34  # in pixels; LABELS is where the axis begins
MARGIN = 170  # on the right of the axis, for the numbers
TICKS = (0.25, 0.5, 1, 2, 4, 8, 16)
FURTHEST = 20.0  # what is better still is drawn there, so that the others keep their distances

# Colours that can be told apart by everybody, on a light page as well as on a dark one.
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f }
.axis, .tick { stroke: #8c959f } .tick { stroke-dasharray: 2 4 } .small { font-size: 11px; fill: #6e7781 }
.holds { stroke: #0072b2; fill: #0072b2 } .broken { stroke: #d55e00; fill: #d55e00 }
.spread { stroke-width: 3; stroke-linecap: round; opacity: .45 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .small { fill: #9198a1 }
  .holds { stroke: #56b4e9; fill: #56b4e9 } .broken { stroke: #e69f00; fill: #e69f00 }
}
""".strip()


def render_svg(run: Run) -> str:
    """Figures without a bar are left out, and those that are zero, for which a logarithm has no place."""
    figures = [
        figure for figure in run.figures if figure.bound and figure.bound.limit and min(figure.spread) > 0
    ]
    height = TOP + ROW * len(figures) + BOTTOM
    axis = _Axis([headroom for figure in figures for headroom in _headrooms(figure)])
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        "<title>Each figure of the benchmark against what it must be</title>",
        f"<style>{STYLE}</style>",
        f'<text x="{LABELS}" y="16">how far from what it must be, as a factor: right of 1 it holds</text>',
        *axis.drawn(height - BOTTOM),
    ]
    for number, figure in enumerate(figures):
        lines += _row(figure, axis, TOP + ROW * number + ROW / 2)
    lines += [f'<text class="small" x="8" y="{height - 10}">{_caption(run)}</text>', "</svg>", ""]
    return "\n".join(lines)


def _caption(run: Run) -> str:
    about = run.machine
    names = ("processor", "Python", "MariaDB")
    told = ", ".join(f"{name} {about[name]}" for name in names if name in about)
    return escape(f"{run.when}; {about.get('cores', '?')} cores, {told}; dot: median, line: all rounds")


def _headrooms(figure: Measurement) -> list[float]:
    """Median, worst and best round as factors of the bar: more than 1 is good, whatever is measured."""
    bound = figure.bound
    if bound is None:
        return []
    values = figure.value, *figure.spread
    factors = (value / bound.limit if bound.at_least else bound.limit / value for value in values)
    return [min(factor, FURTHEST) for factor in factors]


class _Axis:
    """Logarithmic, wide enough for all of these."""

    def __init__(self, headrooms: Sequence[float]) -> None:
        self._low = min([0.8, *headrooms]) / 1.1
        self._high = max([2.0, *headrooms]) * 1.1

    def x(self, headroom: float) -> float:
        share = math.log(headroom / self._low) / math.log(self._high / self._low)
        return round(LABELS + share * (WIDTH - MARGIN - LABELS), 1)

    def drawn(self, bottom: float) -> Iterator[str]:
        for tick in TICKS:
            if self._low <= tick <= self._high:
                x, kind = self.x(tick), "axis" if tick == 1 else "tick"
                yield f'<line class="{kind}" x1="{x}" x2="{x}" y1="{TOP - 8}" y2="{bottom}"/>'
                yield f'<text class="small" x="{x}" y="{TOP - 12}" text-anchor="middle">{tick:g}</text>'


def _row(figure: Measurement, axis: _Axis, y: float) -> Iterator[str]:
    median, one, other = map(axis.x, _headrooms(figure))
    kind = "holds" if figure.holds else "broken"
    unit = "×" if figure.theirs else figure.unit
    name = escape(f"{figure.measure}: {figure.what}")
    value = escape(f"{format_number(figure.value)} {unit} ({figure.bound})")
    yield f'<text x="8" y="{y + 4}">{name}</text>'
    yield f'<line class="spread {kind}" x1="{one}" x2="{other}" y1="{y}" y2="{y}"/>'
    yield f'<circle class="{kind}" cx="{median}" cy="{y}" r="5"/>'
    yield f'<text x="{WIDTH - MARGIN + 14}" y="{y + 4}">{value}</text>'
