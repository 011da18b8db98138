"""The figures on the terminal, in JSON, and in the README."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from rich.table import Table

from bench import environment
from bench.measurements import Bound, Measurement
from tests.harness.servers import ROOT

RESULTS = ROOT / "bench" / "results"
README, PAGE = ROOT / "README.md", ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- figures: python -m bench --readme -->\n", "<!-- end of figures -->\n"
COLUMNS = ("measure", "what", "ours", "theirs", "median", "rounds", "must")
FIRST_NUMBER = COLUMNS.index("ours")


@dataclass(frozen=True)
class Run:
    """One run of the benchmark. `failures` are sentences about measures whose figures don't count."""

    when: str  # in UTC, to the second
    quick: bool
    machine: Mapping[str, str]
    figures: Sequence[Measurement]
    failures: Sequence[str]

    @classmethod
    def now(cls, figures: Sequence[Measurement], failures: Sequence[str], *, quick: bool) -> Self:
        when = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(when, quick, environment.describe(), figures, failures)

    @classmethod
    def read(cls, file: Path) -> Self:
        kept = json.loads(file.read_text())
        return cls(**{**kept, "figures": [_figure(told) for told in kept["figures"]]})

    def write(self, file: Path) -> None:
        kept = {**asdict(self), "figures": [_told(figure) for figure in self.figures]}
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")

    @property
    def holds(self) -> bool:
        return bool(self.figures) and not self.failures and all(figure.holds for figure in self.figures)


def _told(figure: Measurement) -> dict[str, Any]:
    """With what follows from the rounds, for readers that don't want to calculate."""
    least, most = figure.spread
    return {**asdict(figure), "value": figure.value, "min": least, "max": most, "holds": figure.holds}


def _figure(told: Mapping[str, Any]) -> Measurement:
    own = {name: told[name] for name in ("measure", "what", "unit", "ours", "theirs")}
    return Measurement(**own, bound=told["bound"] and Bound(**told["bound"]))


def results_table(figures: Sequence[Measurement]) -> Table:
    table = Table(*COLUMNS, "verdict", title="Benchmark", title_justify="left")
    for column in table.columns[FIRST_NUMBER : COLUMNS.index("must")]:
        column.justify = "right"
    for figure in figures:
        table.add_row(*cells(figure), verdict(figure))
    return table


def verdict(figure: Measurement) -> str:
    if figure.bound is None:
        return ""
    return "[green]holds[/green]" if figure.holds else "[red]BROKEN[/red]"


def cells(figure: Measurement) -> tuple[str, ...]:
    """One for each of COLUMNS."""
    peer = (
        (format_number(_median(figure.ours)), format_number(_median(figure.theirs)))
        if figure.theirs
        else ("", "")
    )
    value = f"{format_number(figure.value)} {'×' if figure.theirs else figure.unit}"
    rounds = (
        f"{format_number(figure.spread[0])} … {format_number(figure.spread[1])}"
        if len(figure.ours) > 1
        else ""
    )
    return figure.measure, figure.what, *peer, value, rounds, str(figure.bound or "")


def _median(values: Sequence[float]) -> float:
    return Measurement("", "", "", values).value


def format_number(value: float) -> str:
    """To three digits; larger numbers whole."""
    return f"{value:,.0f}".replace(",", " ") if abs(value) >= 100 else f"{value:.3g}"


def rendered_sections(run: Run) -> dict[Path, str]:
    """What stands between the marks of each page: the README has what must be, the other page has it all."""
    bounded = [figure for figure in run.figures if figure.bound]
    return {README: _markdown(run, bounded), PAGE: _markdown(run, run.figures)}


def _markdown(run: Run, figures: Sequence[Measurement]) -> str:
    rows = [COLUMNS, ["---"] * 2 + ["---:"] * 4 + ["---"], *map(cells, figures)]
    told = ", ".join(f"{name} {value}" for name, value in run.machine.items())
    kind = "A quick run" if run.quick else "A run"
    lines = [*(f"| {' | '.join(row)} |" for row in rows), "", f"{kind} of {run.when}; {told}."]
    lines += [f"Does not count: {failure}" for failure in run.failures]
    return "\n".join([*lines, ""])


def update_pages(run: Run) -> None:
    for page, text in rendered_sections(run).items():
        before, after = _around_marks(page)
        page.write_text(f"{before}{BEGIN}{text}{END}{after}")


def section_of(page: Path) -> str:
    return page.read_text().partition(BEGIN)[2].partition(END)[0]


def _around_marks(page: Path) -> tuple[str, str]:
    text = page.read_text()
    return text.partition(BEGIN)[0], text.partition(END)[2]
