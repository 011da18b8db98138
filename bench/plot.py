"""A plot of the measurements as factors of their bounds."""

import math
from collections.abc import Iterator, Sequence
from html import escape

from bench.measurements import Measurement
from bench.report import Run, format_number
from tests.harness.servers import ROOT

PLOT = ROOT / "docs" / "performance.svg"
LABELS, WIDTH, ROW, TOP, BOTTOM = 540, 1080, 26, 46, 34  # in pixels; the axis begins at LABELS
MARGIN = 170  # right of the axis, for the numbers
TICKS = (0.25, 0.5, 1, 2, 4, 8, 16)
HEADROOM_MAX = 20.0  # larger factors are drawn here, so that the others stay apart

# Colours that colour-blind readers can tell apart, on a light page as well as on a dark one.
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
    """Return the plot of all measurements with a bound, except zeros, which a logarithmic axis can't show."""
    measurements = [
        each for each in run.measurements if each.bound and each.bound.limit and min(each.spread) > 0
    ]
    height = TOP + ROW * len(measurements) + BOTTOM
    axis = _Axis([headroom for each in measurements for headroom in _headrooms(each)])
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        "<title>The measurements of the benchmark as factors of their bounds</title>",
        f"<style>{STYLE}</style>",
        f'<text x="{LABELS}" y="16">factor of the bound; right of 1 it holds</text>',
        *axis.lines(height - BOTTOM),
    ]
    for number, measurement in enumerate(measurements):
        lines += _row(measurement, axis, TOP + ROW * number + ROW / 2)
    lines += [f'<text class="small" x="8" y="{height - 10}">{_caption(run)}</text>', "</svg>", ""]
    return "\n".join(lines)


def _caption(run: Run) -> str:
    environment = run.environment
    names = ("processor", "Python", "MariaDB")
    versions = ", ".join(f"{name} {environment[name]}" for name in names if name in environment)
    cores = environment.get("cores", "?")
    return escape(f"{run.when}; {cores} cores, {versions}; dot: median, line: all rounds")


def _headrooms(measurement: Measurement) -> list[float]:
    """Return median, worst and best round as factors of the bound; above 1 is better in either direction."""
    bound = measurement.bound
    if bound is None:
        return []
    values = measurement.value, *measurement.spread
    factors = (value / bound.limit if bound.at_least else bound.limit / value for value in values)
    return [min(factor, HEADROOM_MAX) for factor in factors]


class _Axis:
    """A logarithmic axis that includes all `headrooms`."""

    def __init__(self, headrooms: Sequence[float]) -> None:
        self._low = min([0.8, *headrooms]) / 1.1
        self._high = max([2.0, *headrooms]) * 1.1

    def x(self, headroom: float) -> float:
        share = math.log(headroom / self._low) / math.log(self._high / self._low)
        return round(LABELS + share * (WIDTH - MARGIN - LABELS), 1)

    def lines(self, bottom: float) -> Iterator[str]:
        for tick in TICKS:
            if self._low <= tick <= self._high:
                x, css_class = self.x(tick), "axis" if tick == 1 else "tick"
                yield f'<line class="{css_class}" x1="{x}" x2="{x}" y1="{TOP - 8}" y2="{bottom}"/>'
                yield f'<text class="small" x="{x}" y="{TOP - 12}" text-anchor="middle">{tick:g}</text>'


def _row(measurement: Measurement, axis: _Axis, y: float) -> Iterator[str]:
    median, one, other = map(axis.x, _headrooms(measurement))
    css_class = "holds" if measurement.holds else "broken"
    unit = "×" if measurement.baseline else measurement.unit
    name = escape(f"{measurement.measure}: {measurement.name}")
    value = escape(f"{format_number(measurement.value)} {unit} ({measurement.bound})")
    yield f'<text x="8" y="{y + 4}">{name}</text>'
    yield f'<line class="spread {css_class}" x1="{one}" x2="{other}" y1="{y}" y2="{y}"/>'
    yield f'<circle class="{css_class}" cx="{median}" cy="{y}" r="5"/>'
    yield f'<text x="{WIDTH - MARGIN + 14}" y="{y + 4}">{value}</text>'
