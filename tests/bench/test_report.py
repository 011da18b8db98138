"""Reports mark a broken bound, and the pages show what was measured."""

import io
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from bench.__main__ import LATEST
from bench.measurements import Bound, Measurement
from bench.plot import render_svg
from bench.report import PAGE, README, README_RU, Run, rendered_sections, results_table, section_of

HEADLINE = Measurement("latency", "p99 at half of full load", "ms", [87.5], bound=Bound(250, at_least=False))
HOLDS = Measurement("ingest", "a", "requests/s", [900, 1200, 1500], [300, 300, 300], Bound(3, at_least=True))
BROKEN = Measurement("latency", "b", "ms", [300.0, 200.0, 400.0], bound=Bound(250, at_least=False))
REPORTED = Measurement("embedded", "c", "requests/s", [77.0])
SVG = "{http://www.w3.org/2000/svg}"


def run(*measurements: Measurement, failures: tuple[str, ...] = ()) -> Run:
    environment = {"cores": "2", "processor": "a <fast> one"}
    return Run("2026-11-24T10:00:00+00:00", True, environment, measurements, failures)


def test_run_holds_if_all_measurements_hold_and_no_measure_failed() -> None:
    assert run(HOLDS, REPORTED).holds
    assert not run(HOLDS, BROKEN).holds
    assert not run(HOLDS, failures=("latency: nothing was answered 200",)).holds
    assert not run().holds


def test_table_marks_a_broken_bound() -> None:
    console = Console(file=io.StringIO(), width=200)
    console.print(results_table([HOLDS, BROKEN, REPORTED]))
    lines = console.file.getvalue().splitlines()

    assert ["BROKEN" in line for line in lines if " ms" in line] == [True]
    assert ["holds" in line for line in lines if "4 ×" in line] == [True]


def test_written_run_can_be_read_back(tmp_path: Path) -> None:
    before = run(HOLDS, BROKEN, REPORTED, failures=("posting: drift",))

    before.write(tmp_path / "run.json")

    assert rendered_sections(Run.read(tmp_path / "run.json")) == rendered_sections(before)
    assert not Run.read(tmp_path / "run.json").holds


def test_measures_of_earlier_runs_are_kept_and_named() -> None:
    newer = replace(HOLDS, values=[600, 600, 600])
    published = run(newer).over(run(HOLDS, BROKEN, REPORTED), known=("ingest", "latency"))

    assert published.measurements == [newer, BROKEN]
    assert published.earlier == {"latency": "2026-11-24T10:00:00+00:00, commit unknown"}
    assert "Of earlier runs: latency: 2026-11-24" in rendered_sections(published)[PAGE]
    assert run(REPORTED).over(published, known=("latency",)).earlier == published.earlier


def test_plot_shows_every_measurement_with_a_bound() -> None:
    drawing = ET.fromstring(render_svg(run(HOLDS, BROKEN, REPORTED)))

    holds, broken = drawing.findall(f"{SVG}circle")
    bar = next(line for line in drawing.findall(f"{SVG}line") if line.get("class") == "axis")
    assert (holds.get("class"), broken.get("class")) == ("holds", "broken")
    assert float(broken.get("cx", "")) < float(bar.get("x1", "")) < float(holds.get("cx", ""))


@pytest.mark.parametrize("page", [README, README_RU, PAGE], ids=lambda page: page.name)
def test_pages_show_the_stored_run(page: Path) -> None:
    stored = Run.read(LATEST)
    if stored.when not in section_of(page):
        pytest.skip("the page shows an older run; python -m bench --readme updates it")

    assert section_of(page) == rendered_sections(stored)[page]


def test_readme_has_headlines_and_the_docs_page_everything() -> None:
    pages = rendered_sections(run(HEADLINE, REPORTED))

    assert "| from receipt to applied, p99 at half load |  |  | 87.5 ms | ≤ 250 |" in pages[README]
    assert (
        "| от получения до проведения, p99 при половинной нагрузке |  |  | 87.5 ms | ≤ 250 |"
        in pages[README_RU]
    )
    assert "embedded" not in pages[README]
    assert "embedded" in pages[PAGE]
