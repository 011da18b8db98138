"""Measure how fast it is, against the usual designs on the same machine. Exit status 0: every bound holds."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench import measures
from bench.measurements import Measurement
from bench.plot import PLOT, render_svg
from bench.report import PAGE, README, RESULTS, Run, results_table, update_pages
from bench.systems import InvalidRun
from tests.harness.procfile_stack import missing_servers
from tests.harness.servers import ROOT, ServerFailed, missing_reason
from tests.harness.wait import WaitTimeout

WIDTH = 120
LATEST, SOME = RESULTS / "latest.json", RESULTS / "some.json"
INTERRUPTED = 130
console = Console(highlight=False, width=WIDTH)


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 0 every bound holds, 1 anything else."""
    options = parse(arguments)
    if options.list:
        return say_what_there_is()
    if options.readme:
        update_pages(Run.read(LATEST))
        console.print(f"{README.name} and {PAGE.name} show {LATEST.relative_to(ROOT)}")
        return 0
    if lacks := [*missing_servers(), *filter(None, [missing_reason("wrk")])]:
        console.print("!! The benchmark does NOT run:", *lacks, sep="\n!!   ", markup=False)
        return 1
    figures, failures = run_all(options.names or names(), options.rounds, quick=options.quick)
    run = Run.now(figures, failures, quick=options.quick)
    keep(run, whole=not options.names)
    return 0 if run.holds else 1


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help="measures; all unless given")
    parser.add_argument("--quick", action="store_true", help="3 to 4 minutes; figures wander more")
    parser.add_argument("--rounds", type=int, default=1, help="take each measure so often")
    parser.add_argument("--list", action="store_true", help="say which measures there are")
    parser.add_argument(
        "--readme", action="store_true", help="only show the latest run in the README and in docs"
    )
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(names()):
        parser.error(f"unknown: {', '.join(sorted(unknown))} (known: {', '.join(names())})")
    return options


def names() -> list[str]:
    return [module.name for module in iter_modules(measures.__path__)]


def measure_named(name: str) -> ModuleType:
    return import_module(f"{measures.__name__}.{name}")


def say_what_there_is() -> int:
    table = Table("name", "what is measured", box=None)
    for name in names():
        table.add_row(name, " ".join(str(measure_named(name).__doc__).split()))
    console.print(table)
    return 0


def run_all(chosen: Sequence[str], times: int, *, quick: bool) -> tuple[list[Measurement], list[str]]:
    """The figures of all that came to an end, and a sentence about each that didn't."""
    figures: list[Measurement] = []
    failures: list[str] = []
    for name in chosen:
        console.print(f"[bold]{name}[/bold]")
        begun = time.monotonic()
        try:
            figures += joined([list(measure_named(name).measure(quick, say)) for _ in range(times)])
        except (InvalidRun, WaitTimeout, ServerFailed) as failure:
            failures.append(f"{name}: {failure}")
            console.print(f"[red]does not count[/red]: {escape(str(failure))}")
        say(f"took {time.monotonic() - begun:.0f} s")
    return figures, failures


def joined(runs: Sequence[Sequence[Measurement]]) -> Iterator[Measurement]:
    """The same figures, each with the rounds of all runs."""
    for first, *others in zip(*runs, strict=True):
        ours, theirs = list(first.ours), list(first.theirs)
        for other in others:
            ours += other.ours
            theirs += other.theirs
        yield replace(first, ours=ours, theirs=theirs)


def say(line: str) -> None:
    console.print(f"  {line}", markup=False, style="dim")


def keep(run: Run, *, whole: bool) -> None:
    """Show it; a run of only some measures leaves what the README shows alone."""
    console.print(results_table(run.figures))
    file = LATEST if whole else SOME
    run.write(file)
    console.print(f"Kept in {file.relative_to(ROOT)}")
    if whole:
        PLOT.write_text(render_svg(run))
        console.print(f"Drawn in {PLOT.relative_to(ROOT)}")


if __name__ == "__main__":
    # By way of every `with`, so that nothing is left running.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    os.chdir(ROOT)
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
