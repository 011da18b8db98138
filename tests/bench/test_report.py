"""A broken bound is seen by everybody who looks, and what the README shows is what was measured."""

import io
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from bench.__main__ import LATEST
from bench.measurements import Bound, Measurement
from bench.plot import render_svg
from bench.report import PAGE, README, Run, rendered_sections, results_table, section_of

HOLDS = Measurement(
    "acknowledge", "a", "requests/s", [900, 1200, 1500], [300, 300, 300], Bound(3, at_least=True)
)
BROKEN = Measurement("latency", "b", "ms", [300.0, 200.0, 400.0], bound=Bound(250, at_least=False))
REPORTED = Measurement("embedded", "c", "requests/s", [77.0])
SVG = "{http://www.w3.org/2000/svg}"


def run(*figures: Measurement, failures: tuple[str, ...] = ()) -> Run:
    machine = {"cores": "2", "processor": "a <fast> one"}
    return Run("2026-11-24T10:00:00+00:00", quick=True, machine=machine, figures=figures, failures=failures)


def test_a_run_holds_if_each_figure_does_and_every_measure_came_to_its_end() -> None:
    assert run(HOLDS, REPORTED).holds
    assert not run(HOLDS, BROKEN).holds
    assert not run(HOLDS, failures=("latency: it did not count",)).holds
    assert not run().holds


def test_the_table_marks_a_broken_bound() -> None:
    console = Console(file=io.StringIO(), width=200)
    console.print(results_table([HOLDS, BROKEN, REPORTED]))
    lines = console.file.getvalue().splitlines()

    assert ["BROKEN" in line for line in lines if " ms" in line] == [True]
    assert ["holds" in line for line in lines if "4 ×" in line] == [True]


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    before = run(HOLDS, BROKEN, REPORTED, failures=("posting: drift",))

    before.write(tmp_path / "run.json")

    assert rendered_sections(Run.read(tmp_path / "run.json")) == rendered_sections(before)
    assert not Run.read(tmp_path / "run.json").holds


def test_the_plot_shows_every_figure_that_has_a_bar() -> None:
    drawing = ET.fromstring(render_svg(run(HOLDS, BROKEN, REPORTED)))

    holds, broken = drawing.findall(f"{SVG}circle")
    bar = next(line for line in drawing.findall(f"{SVG}line") if line.get("class") == "axis")
    assert (holds.get("class"), broken.get("class")) == ("holds", "broken")
    assert float(broken.get("cx", "")) < float(bar.get("x1", "")) < float(holds.get("cx", ""))


@pytest.mark.parametrize("page", [README, PAGE], ids=lambda page: page.name)
def test_pages_show_the_run_that_is_kept(page: Path) -> None:
    kept = Run.read(LATEST)
    if kept.when not in section_of(page):
        pytest.skip("there is a newer run than the page's; python -m bench --readme shows it there")

    assert section_of(page) == rendered_sections(kept)[page]


def test_the_readme_has_what_must_be_and_the_other_page_everything() -> None:
    pages = rendered_sections(run(HOLDS, REPORTED))

    assert "embedded" not in pages[README]
    assert "embedded" in pages[PAGE]
