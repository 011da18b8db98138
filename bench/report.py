"""The figures on the terminal, in JSON, and in the README."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from rich.table import Table

from bench import machine
from bench.figures import Bound, Figure
from tests.servers import ROOT

RESULTS = ROOT / "bench" / "results"
README = ROOT / "README.md"
BEGIN, END = "<!-- figures: python -m bench --readme -->\n", "<!-- end of figures -->\n"
COLUMNS = ("measure", "what", "ours", "theirs", "figure", "must")


@dataclass(frozen=True)
class Run:
    """One run of the benchmark. `failures` are sentences about measures whose figures don't count."""

    when: str  # in UTC, to the second
    quick: bool
    machine: Mapping[str, str]
    figures: Sequence[Figure]
    failures: Sequence[str]

    @classmethod
    def now(cls, figures: Sequence[Figure], failures: Sequence[str], *, quick: bool) -> Self:
        when = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(when, quick, machine.described(), figures, failures)

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


def _told(figure: Figure) -> dict[str, Any]:
    """With what follows from the rounds, for readers that don't want to calculate."""
    least, most = figure.spread
    return {**asdict(figure), "value": figure.value, "min": least, "max": most, "holds": figure.holds}


def _figure(told: Mapping[str, Any]) -> Figure:
    own = {name: told[name] for name in ("measure", "what", "unit", "ours", "theirs")}
    return Figure(**own, bound=told["bound"] and Bound(**told["bound"]))


def table_of(figures: Sequence[Figure]) -> Table:
    table = Table(*COLUMNS, "verdict", title="Benchmark", title_justify="left")
    for name in ("ours", "theirs", "figure"):
        table.columns[COLUMNS.index(name)].justify = "right"
    for figure in figures:
        table.add_row(*cells(figure), verdict(figure))
    return table


def verdict(figure: Figure) -> str:
    if figure.bound is None:
        return ""
    return "[green]holds[/green]" if figure.holds else "[red]BROKEN[/red]"


def cells(figure: Figure) -> tuple[str, ...]:
    """One for each of COLUMNS. A ratio stands in the column figure, anything else in the column ours."""
    from_to = " … ".join(map(written, figure.spread))
    value = f"{written(figure.value)} [{from_to}]"
    must = str(figure.bound or "")
    if not figure.theirs:
        return figure.measure, figure.what, "", "", f"{value} {figure.unit}", must
    ours, theirs = (f"{written(_median(values))} {figure.unit}" for values in (figure.ours, figure.theirs))
    return figure.measure, figure.what, ours, theirs, f"{value} ×", must


def _median(values: Sequence[float]) -> float:
    return Figure("", "", "", values).value


def written(value: float) -> str:
    """To three digits; larger numbers whole."""
    return f"{value:,.0f}".replace(",", " ") if abs(value) >= 100 else f"{value:.3g}"


def markdown_of(run: Run) -> str:
    """The table and what it was taken on, for the README."""
    rows = [COLUMNS, ["---"] * 2 + ["---:"] * 3 + ["---"], *map(cells, run.figures)]
    told = ", ".join(f"{name} {value}" for name, value in run.machine.items())
    kind = "A quick run" if run.quick else "A run"
    return "\n".join(
        [*("| " + " | ".join(row) + " |" for row in rows), "", f"{kind} of {run.when}; {told}.", ""]
    )


def renew_readme(run: Run) -> None:
    text = README.read_text()
    README.write_text(f"{text.partition(BEGIN)[0]}{BEGIN}{markdown_of(run)}{END}{text.partition(END)[2]}")


def in_readme() -> str:
    """What stands between the marks."""
    return README.read_text().partition(BEGIN)[2].partition(END)[0]
