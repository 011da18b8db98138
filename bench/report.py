"""The measurements of a run as a table on the terminal, as JSON, and in the README and the docs."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from rich.table import Table

from bench import environment
from bench.measurements import Bound, Measurement
from tests.harness.servers import ROOT

RESULTS = ROOT / "bench" / "results"
README, README_RU = ROOT / "README.md", ROOT / "README.ru.md"
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- figures: python -m bench --readme -->\n", "<!-- end of figures -->\n"
COLUMNS = ("measure", "measurement", "Prihod", "baseline", "median", "rounds", "bound")
FIRST_NUMBER = COLUMNS.index("Prihod")
HEADLINE_COLUMNS = (
    ("figure", "показатель"),
    ("Prihod", "Prihod"),
    ("baseline", "эталон"),
    ("ratio or value", "отношение или значение"),
    ("bound", "граница"),
)
# The rows of the README, and their labels in English and in Russian.
HEADLINES = {
    ("endpoint", "CPU against message per webhook"): (
        "deliveries acknowledged per second of CPU, against one Celery message per webhook",
        "принято доставок на секунду CPU; эталон — по сообщению Celery на вебхук",
    ),
    ("endpoint", "requests/s against message per webhook"): (
        "deliveries acknowledged per second, against the same",
        "принято доставок в секунду; тот же эталон",
    ),
    ("endpoint", "p99 against message per webhook, same rate"): (
        "p99 of the answers at the same rate, ms, against the same",
        "p99 ответа при равной нагрузке, мс; тот же эталон",
    ),
    ("bursts", "until 1000 at once are answered, new operations, MariaDB"): (
        "until 1000 deliveries at once are stored and answered",
        "1000 доставок одновременно: до последнего ответа",
    ),
    ("posting", "webhooks/s against a transaction per task, one organization"): (
        "webhooks posted per second, against a transaction per task",
        "проведено вебхуков в секунду; эталон — по транзакции на задачу",
    ),
    ("latency", "p99 at half of full load"): (
        "from receipt to applied, p99 at half load",
        "от получения до проведения, p99 при половинной нагрузке",
    ),
}
HEADLINE_ENVIRONMENT = ("cores", "processor", "MariaDB", "commit")


@dataclass(frozen=True)
class Run:
    """One run of the benchmark. `failures` are sentences about measures without a valid result.

    `earlier` has the measures that were taken over from earlier runs, each with the run's date and commit.
    """

    when: str  # in UTC, to the second
    quick: bool
    environment: Mapping[str, str]
    measurements: Sequence[Measurement]
    failures: Sequence[str]
    earlier: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def now(cls, measurements: Sequence[Measurement], failures: Sequence[str], *, quick: bool) -> Self:
        when = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(when, quick, environment.describe(), measurements, failures)

    @classmethod
    def read(cls, file: Path) -> Self:
        fields = json.loads(file.read_text())
        return cls(**{**fields, "measurements": [_from_json(each) for each in fields["measurements"]]})

    def write(self, file: Path) -> None:
        fields = {**asdict(self), "measurements": [_to_json(each) for each in self.measurements]}
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(fields, indent=1, ensure_ascii=False) + "\n")

    def over(self, previous: "Run", known: Iterable[str]) -> "Run":
        """Return this run with the `known` measures that only the previous one has."""
        own = {each.measure for each in self.measurements}
        kept = [each for each in previous.measurements if each.measure in {*known} - own]
        from_previous = f"{previous.when}, commit {previous.environment.get('commit', 'unknown')}"
        earlier = {each.measure: previous.earlier.get(each.measure, from_previous) for each in kept}
        return replace(self, measurements=[*self.measurements, *kept], earlier=earlier)

    @property
    def holds(self) -> bool:
        return bool(self.measurements) and not self.failures and all(each.holds for each in self.measurements)


def _to_json(measurement: Measurement) -> dict[str, Any]:
    """Return the fields, and the values derived from the rounds, for programs that read the file."""
    low, high = measurement.spread
    derived = {"value": measurement.value, "min": low, "max": high, "holds": measurement.holds}
    return asdict(measurement) | derived


def _from_json(fields: Mapping[str, Any]) -> Measurement:
    own = {name: fields[name] for name in ("measure", "name", "unit", "values", "baseline")}
    return Measurement(**own, bound=fields["bound"] and Bound(**fields["bound"]))


def results_table(measurements: Sequence[Measurement]) -> Table:
    table = Table(*COLUMNS, "verdict", title="Benchmark", title_justify="left")
    for column in table.columns[FIRST_NUMBER : COLUMNS.index("bound")]:
        column.justify = "right"
    for measurement in measurements:
        table.add_row(*cells(measurement), verdict(measurement))
    return table


def verdict(measurement: Measurement) -> str:
    if measurement.bound is None:
        return ""
    return "[green]holds[/green]" if measurement.holds else "[red]BROKEN[/red]"


def cells(measurement: Measurement) -> tuple[str, ...]:
    """Return one cell for each of COLUMNS."""
    rounds = " … ".join(map(format_number, measurement.spread)) if len(measurement.values) > 1 else ""
    medians, value, bound = _medians(measurement), _value(measurement), str(measurement.bound or "")
    return measurement.measure, measurement.name, *medians, value, rounds, bound


def _medians(measurement: Measurement) -> tuple[str, str]:
    """Return the medians of Prihod and the baseline, empty if there is no baseline."""
    if not measurement.baseline:
        return "", ""
    return format_number(_median(measurement.values)), format_number(_median(measurement.baseline))


def _value(measurement: Measurement) -> str:
    return f"{format_number(measurement.value)} {'×' if measurement.baseline else measurement.unit}"


def _median(values: Sequence[float]) -> float:
    return Measurement("", "", "", values).value


def format_number(value: float) -> str:
    """Return the number with three digits, or whole if it has more."""
    return f"{value:,.0f}".replace(",", " ") if abs(value) >= 100 else f"{value:.3g}"


def rendered_sections(run: Run) -> dict[Path, str]:
    """Return the section of each page: the headlines for the READMEs, everything for the page in docs."""
    return {README: _headlines(run, 0), README_RU: _headlines(run, 1), PAGE: _everything(run)}


def _headlines(run: Run, language: int) -> str:
    """Return the six rows of a README: `language` is 0 for English, 1 for Russian."""
    by_key = {(each.measure, each.name): each for each in run.measurements}
    rows = [
        (labels[language], *_medians(by_key[key]), _value(by_key[key]), str(by_key[key].bound or ""))
        for key, labels in HEADLINES.items()
        if key in by_key
    ]
    header = [names[language] for names in HEADLINE_COLUMNS]
    alignment = ["---", *["---:"] * 3, "---"]
    about = {name: value for name, value in run.environment.items() if name in HEADLINE_ENVIRONMENT}
    caption = f"{('A run of', 'Прогон от')[language]} {run.when}; {_listed(about)}."
    caption += _earlier(run, {measure for measure, _ in HEADLINES}, language)
    return _markdown([header, alignment, *rows], caption)


def _everything(run: Run) -> str:
    alignment = ["---"] * 2 + ["---:"] * 4 + ["---"]
    caption = f"{'A quick run' if run.quick else 'A run'} of {run.when}; {_listed(run.environment)}."
    caption += _earlier(run, run.earlier, 0)
    invalid = [f"Not valid: {failure}" for failure in run.failures]
    return _markdown([COLUMNS, alignment, *map(cells, run.measurements)], caption, *invalid)


def _earlier(run: Run, shown: Collection[str], language: int) -> str:
    """Return a sentence about the measures of earlier runs, each by its date and commit."""
    by_run: defaultdict[str, list[str]] = defaultdict(list)
    for measure, when in run.earlier.items():
        if measure in shown:
            by_run[when].append(measure)
    if not by_run:
        return ""
    listed = "; ".join(f"{', '.join(names)}: {when}" for when, names in by_run.items())
    return f" {('Of earlier runs', 'Из прежних прогонов')[language]}: {listed}."


def _listed(environment: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in environment.items())


def _markdown(rows: Iterable[Sequence[str]], *captions: str) -> str:
    return "\n".join([*(f"| {' | '.join(row)} |" for row in rows), "", *captions, ""])


def update_pages(run: Run) -> None:
    for page, text in rendered_sections(run).items():
        before, after = _around_section(page)
        page.write_text(f"{before}{BEGIN}{text}{END}{after}")


def section_of(page: Path) -> str:
    return page.read_text().partition(BEGIN)[2].partition(END)[0]


def _around_section(page: Path) -> tuple[str, str]:
    text = page.read_text()
    return text.partition(BEGIN)[0], text.partition(END)[2]
