"""Benchmark Prihod against baseline designs on the same machine. Exit status 0: every bound holds."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench import measures
from bench.measurements import Measurement
from bench.plot import PLOT, render_svg
from bench.report import PAGE, README, README_RU, RESULTS, Run, results_table, update_pages
from bench.systems import InvalidRun
from tests.harness.procfile_stack import missing_servers
from tests.harness.servers import ROOT, ServerFailed, missing_reason
from tests.harness.wait import WaitTimeout

WIDTH = 120
LATEST, PARTIAL = RESULTS / "latest.json", RESULTS / "partial.json"
INTERRUPTED = 130
console = Console(highlight=False, width=WIDTH)


def main(arguments: Sequence[str]) -> int:
    """Return the exit status: 0 if every bound holds, 1 otherwise."""
    options = parse(arguments)
    if options.list:
        return list_measures()
    if options.readme:
        update_pages(Run.read(LATEST))
        pages = ", ".join(page.name for page in (README, README_RU, PAGE))
        console.print(f"{pages} show {LATEST.relative_to(ROOT)}")
        return 0
    if missing := [*missing_servers(), *filter(None, [missing_reason("wrk")])]:
        console.print("!! The benchmark does NOT run:", *missing, sep="\n!!   ", markup=False)
        return 1
    names = options.names or measure_names()
    measurements, failures = run_all(names, options.rounds, quick=options.quick, against=options.against)
    run = Run.now(measurements, failures, quick=options.quick)
    console.print(results_table(run.measurements))
    if options.publish and LATEST.exists():
        publish(run.over(Run.read(LATEST), measure_names()))
    elif not options.names:
        publish(run)
    else:
        write(run, PARTIAL)
    return 0 if run.holds else 1


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help="measures to run; all unless given")
    parser.add_argument("--quick", action="store_true", help="3 to 4 minutes; the results vary more")
    parser.add_argument("--rounds", type=int, default=1, help="repeat each measure this many times")
    parser.add_argument("--against", default="", metavar="REVISION", help="for low_rate: measure it in turns")
    parser.add_argument("--publish", action="store_true", help="replace these measures in the published run")
    parser.add_argument("--list", action="store_true", help="list the measures")
    parser.add_argument(
        "--readme", action="store_true", help="only write the latest run into the READMEs and the docs"
    )
    options = parser.parse_args(arguments)
    if options.publish and options.quick:
        parser.error("a quick run is not published")
    if unknown := set(options.names) - set(measure_names()):
        parser.error(f"unknown: {', '.join(sorted(unknown))} (known: {', '.join(measure_names())})")
    return options


def measure_names() -> list[str]:
    return [module.name for module in iter_modules(measures.__path__)]


def load_measure(name: str) -> ModuleType:
    return import_module(f"{measures.__name__}.{name}")


def measure_of(name: str, against: str) -> Callable[[bool, Callable[[str], None]], Iterator[Measurement]]:
    measure = load_measure(name).measure
    return partial(measure, against=against) if against and name == "low_rate" else measure


def list_measures() -> int:
    table = Table("name", "what is measured", box=None)
    for name in measure_names():
        table.add_row(name, " ".join(str(load_measure(name).__doc__).split()))
    console.print(table)
    return 0


def run_all(
    chosen: Sequence[str], times: int, *, quick: bool, against: str = ""
) -> tuple[list[Measurement], list[str]]:
    """Return the measurements of all valid measures, and a sentence about each of the others."""
    measurements: list[Measurement] = []
    failures: list[str] = []
    for name in chosen:
        console.print(f"[bold]{name}[/bold]")
        started = time.monotonic()
        try:
            measure = measure_of(name, against)
            measurements += merged([list(measure(quick, log)) for _ in range(times)])
        except (InvalidRun, WaitTimeout, ServerFailed) as exc:
            failures.append(f"{name}: {exc}")
            console.print(f"[red]not valid[/red]: {escape(str(exc))}")
        log(f"took {time.monotonic() - started:.0f} s")
    return measurements, failures


def merged(runs: Sequence[Sequence[Measurement]]) -> Iterator[Measurement]:
    """Merge several runs of one measure into measurements with the rounds of all."""
    for first, *others in zip(*runs, strict=True):
        values, baseline = list(first.values), list(first.baseline)
        for other in others:
            values += other.values
            baseline += other.baseline
        yield replace(first, values=values, baseline=baseline)


def log(line: str) -> None:
    console.print(f"  {line}", markup=False, style="dim")


def publish(run: Run) -> None:
    write(run, LATEST)
    PLOT.write_text(render_svg(run))
    console.print(f"Plotted in {PLOT.relative_to(ROOT)}")


def write(run: Run, file: Path) -> None:
    run.write(file)
    console.print(f"Written to {file.relative_to(ROOT)}")


if __name__ == "__main__":
    # As an exception, so that every context manager ends its processes.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    os.chdir(ROOT)
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
