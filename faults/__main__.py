"""Run the fault suite: each scenario on a house of its own, with a table of what they came to."""

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from faults.reporting import format_line, markdown_table, results_table, save_results, totals
from faults.runner import Plan, exit_cleanly_on_sigterm, run_in_parallel, run_sequentially
from faults.scenario_run import RESULTS, Scenario
from faults.scenarios import SCENARIOS
from faults.seeded_bugs import SEEDED_BUGS
from tests.harness.procfile_stack import missing_servers
from tests.harness.servers import NOT_WITHOUT_SERVERS, ROOT, servers_are_required

WIDTH = 110
console = Console(highlight=False, width=WIDTH)


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 0 all green (with --seeded-bugs: all seen), 1 anything else."""
    options = parse(arguments)
    if options.list:
        return say_what_there_is()
    if options.markdown:
        return say_what_was_kept(options.names)
    seed = random.randrange(10**6) if options.seed is None else options.seed
    console.print(f"Seed {seed}; the same seed repeats the same deliveries and the same schedule of faults.")
    if options.planted:
        return run_planted(options.names, seed, options.name or "planted")
    return run_scenarios(options, seed)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help="scenarios, also with *; all unless given")
    parser.add_argument("--seed", type=int, help="new unless given")
    parser.add_argument("--minutes", type=float, default=0, help="go on with further seeds for that long")
    parser.add_argument(
        "--jobs", type=int, default=1, help="scenarios at a time, but for those about seconds"
    )
    parser.add_argument("--name", help="of the kept results; latest or planted unless given")
    parser.add_argument("--seeded-bugs", action="store_true", help="plant bugs instead; each must turn red")
    parser.add_argument("--list", action="store_true", help="say which scenarios and planted bugs there are")
    parser.add_argument("--markdown", action="store_true", help="show kept results, named like their files")
    options = parser.parse_args(arguments)
    if options.minutes and options.jobs > 1:
        parser.error("--minutes goes from one scenario to the next, so not with --jobs")
    return options


def say_what_there_is() -> int:
    table = Table("name", "what happens", box=None)
    for scenario in SCENARIOS.values():
        table.add_row(scenario.name, scenario.sentence)
    for bug in SEEDED_BUGS:
        table.add_row(bug.name, bug.sentence)
    console.print(table)
    return 0


def say_what_was_kept(names: Sequence[str]) -> int:
    for name in names or ["latest", "planted"]:
        sys.stdout.write(markdown_table(json.loads((RESULTS / f"{name}.json").read_text())) + "\n\n")
    return 0


def run_scenarios(options: argparse.Namespace, seed: int) -> int:
    skipped: dict[str, str] = {}
    plan = can_run(chosen(options.names, seed, options.minutes), skipped)
    results = []
    for result in run_sequentially(plan) if options.jobs == 1 else run_in_parallel(list(plan), options.jobs):
        results.append(result)
        console.print(format_line(result))
    results.sort(key=lambda result: (result.seed, list(SCENARIOS).index(result.scenario)))
    console.print(results_table(results))
    figures = {"seed": seed, "skipped": skipped, "totals": totals(results)}
    say_where(save_results(options.name or "latest", figures, results))
    if skipped and servers_are_required():
        console.print(NOT_WITHOUT_SERVERS)
        return 1
    return 1 if not results or any(result.broken for result in results) else 0


def can_run(plan: Plan, skipped: dict[str, str]) -> Plan:
    """Those of `plan` that lack nothing here; why the others are left out is said, and noted in `skipped`."""
    for scenario, seed in plan:
        if lack := lacking_for(scenario):
            skipped[scenario.name] = lack
            console.print(f"!! {scenario.name} does NOT run: {lack}", markup=False)
        else:
            yield scenario, seed


def chosen(patterns: Sequence[str], seed: int, minutes: float) -> Plan:
    scenarios = [each for name, each in SCENARIOS.items() if matches(name, patterns)]
    until = time.monotonic() + 60 * minutes
    while scenarios:
        for each in scenarios:
            yield each, seed
            if minutes and time.monotonic() > until:
                return
        if not minutes:
            return
        seed += 1


def matches(name: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatch(name, pattern) for pattern in patterns)


def lacking_for(scenario: Scenario) -> str:
    lacks = [] if scenario.stack.get("embedded") else missing_servers()
    return "; ".join([*lacks, *filter(None, [scenario.lacks()])])


def run_planted(names: Sequence[str], seed: int, kept_as: str) -> int:
    table = Table("planted bug", "scenario", "seen by", "verdict", title="Planted bugs", title_justify="left")
    rows = []
    for bug in (bug for bug in SEEDED_BUGS if matches(bug.name, names)):
        result, sentence = bug.play(seed)
        rows.append({"planted": bug.name, "sentence": bug.sentence, "seen_by": sentence, **asdict(result)})
        console.print(f"{bug.name}: {sentence or 'NOT SEEN'}", markup=False)
        table.add_row(bug.name, bug.scenario, escape(sentence), "[red]red[/red]" if sentence else "NOT SEEN")
    console.print(table)
    say_where(save_results(kept_as, {"seed": seed, "runs": rows}, []))
    return 0 if rows and all(row["seen_by"] for row in rows) else 1


def say_where(file: Path) -> None:
    console.print(f"Kept in {file.relative_to(ROOT)}")


if __name__ == "__main__":
    exit_cleanly_on_sigterm()
    os.chdir(ROOT)
    sys.exit(main(sys.argv[1:]))
