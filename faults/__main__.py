"""Run the fault suite: each scenario on its own stack, with a table of the results."""

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

from faults.all_scenarios import SCENARIOS
from faults.reporting import format_line, markdown_table, results_table, save_results, totals
from faults.runner import Plan, exit_cleanly_on_sigterm, run_in_parallel, run_sequentially
from faults.scenario_run import RESULTS, Scenario
from faults.seeded_bugs import SEEDED_BUGS
from tests.harness.procfile_stack import missing_servers
from tests.harness.servers import REQUIRED_SERVERS_MISSING, ROOT, servers_are_required

WIDTH = 110
console = Console(highlight=False, width=WIDTH)


def main(arguments: Sequence[str]) -> int:
    """Return the exit status: 0 if no scenario found a violation, else 1.

    With --seeded-bugs: 0 if every bug was detected.
    """
    options = parse(arguments)
    if options.list:
        return list_scenarios()
    if options.markdown:
        return print_saved(options.names)
    seed = random.randrange(10**6) if options.seed is None else options.seed
    console.print(f"Seed {seed}; the same seed repeats the same deliveries and the same schedule of faults.")
    if options.seeded_bugs:
        return run_seeded_bugs(options.names, seed, options.name or "seeded_bugs")
    return run_scenarios(options, seed)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="name", help="scenarios, with * as a wildcard; default: all"
    )
    parser.add_argument("--seed", type=int, help="default: random")
    parser.add_argument("--minutes", type=float, default=0, help="continue with further seeds for this long")
    parser.add_argument(
        "--jobs", type=int, default=1, help="parallel scenarios, except those that judge by seconds"
    )
    parser.add_argument("--name", help="of the results file; default: latest or seeded_bugs")
    parser.add_argument("--seeded-bugs", action="store_true", help="seed bugs instead; each must be detected")
    parser.add_argument("--list", action="store_true", help="list the scenarios and seeded bugs")
    parser.add_argument("--markdown", action="store_true", help="print saved results by file name")
    options = parser.parse_args(arguments)
    if options.minutes and options.jobs > 1:
        parser.error("--minutes runs sequentially, so it excludes --jobs")
    return options


def list_scenarios() -> int:
    table = Table("name", "what happens", box=None)
    for scenario in SCENARIOS.values():
        table.add_row(scenario.name, scenario.description)
    for bug in SEEDED_BUGS:
        table.add_row(bug.name, bug.description)
    console.print(table)
    return 0


def print_saved(names: Sequence[str]) -> int:
    for name in names or ["latest", "seeded_bugs"]:
        sys.stdout.write(markdown_table(json.loads((RESULTS / f"{name}.json").read_text())) + "\n\n")
    return 0


def run_scenarios(options: argparse.Namespace, seed: int) -> int:
    skipped: dict[str, str] = {}
    plan = runnable(plan_of(options.names, seed, options.minutes), skipped)
    results = []
    for result in run_sequentially(plan) if options.jobs == 1 else run_in_parallel(list(plan), options.jobs):
        results.append(result)
        console.print(format_line(result))
    results.sort(key=lambda result: (result.seed, list(SCENARIOS).index(result.scenario)))
    console.print(results_table(results))
    summary = {"seed": seed, "skipped": skipped, "totals": totals(results)}
    print_path(save_results(options.name or "latest", summary, results))
    if skipped and servers_are_required():
        console.print(REQUIRED_SERVERS_MISSING)
        return 1
    return 1 if not results or any(result.violations for result in results) else 0


def runnable(plan: Plan, skipped: dict[str, str]) -> Plan:
    """Yield the scenarios that can run here; print why the others can't, and record it in `skipped`."""
    for scenario, seed in plan:
        if reason := missing_for(scenario):
            skipped[scenario.name] = reason
            console.print(f"!! {scenario.name} does NOT run: {reason}", markup=False)
        else:
            yield scenario, seed


def plan_of(patterns: Sequence[str], seed: int, minutes: float) -> Plan:
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


def missing_for(scenario: Scenario) -> str:
    reasons = [] if scenario.stack.get("embedded") else missing_servers()
    return "; ".join([*reasons, *filter(None, [scenario.missing()])])


def run_seeded_bugs(names: Sequence[str], seed: int, name: str) -> int:
    columns = ("seeded bug", "scenario", "detected by", "verdict")
    table = Table(*columns, title="Seeded bugs", title_justify="left")
    rows = []
    for bug in (bug for bug in SEEDED_BUGS if matches(bug.name, names)):
        result, violation = bug.run(seed)
        rows.append(
            {"bug": bug.name, "description": bug.description, "detected_by": violation, **asdict(result)}
        )
        console.print(f"{bug.name}: {violation or 'NOT DETECTED'}", markup=False)
        table.add_row(
            bug.name, bug.scenario, escape(violation), "[red]red[/red]" if violation else "NOT DETECTED"
        )
    console.print(table)
    print_path(save_results(name, {"seed": seed, "runs": rows}, []))
    return 0 if rows and all(row["detected_by"] for row in rows) else 1


def print_path(file: Path) -> None:
    console.print(f"Saved in {file.relative_to(ROOT)}")


if __name__ == "__main__":
    exit_cleanly_on_sigterm()
    os.chdir(ROOT)
    sys.exit(main(sys.argv[1:]))
