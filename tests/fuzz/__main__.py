"""More of it: python -m tests.fuzz --requests 200000 --seed 7

Starts the house as in production, attacks it, and prints what came of it by door, kind and answer. The exit
status is 1 when anything was wrong.
"""

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tests.fuzz.attacker import Attacker, AttackResults
from tests.fuzz.resources import ledger_violations, production_stack, web_memory_kib

FINDINGS_SHOWN_MAX = 20


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**9, help="repeats a run")
    parser.add_argument("--markdown", action="store_true", help="print the table for docs/security.md")
    asked = parser.parse_args()
    console = Console(stderr=True)
    console.print(f"Seed {asked.seed}: {asked.requests} bad requests")
    with tempfile.TemporaryDirectory() as folder, production_stack(Path(folder)) as stack:
        attacker = Attacker(stack.port, asked.seed)
        before = web_memory_kib(stack)
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("attacks", total=asked.requests)
            outcome = attacker.run(asked.requests, lambda: bar.advance(task))
        after = web_memory_kib(stack)
        outcome.findings += ledger_violations(stack, outcome.honest_kopecks)
    facts = summary(outcome, asked.seed, after - before)
    if asked.markdown:
        sys.stdout.write("\n".join([*markdown(outcome), "", facts, ""]))
    else:
        Console().print(table(outcome), facts)
    for finding in outcome.findings[:FINDINGS_SHOWN_MAX]:
        console.print(finding, markup=False)
    return 1 if outcome.findings else 0


def rows(outcome: AttackResults) -> list[tuple[str, str, int, str]]:
    """(door, kind, requests, results with their counts)."""
    results: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
    for (endpoint, kind, result), count in outcome.table.items():
        results[endpoint, kind].append((count, result))
    return [
        (
            *key,
            sum(count for count, _ in found),
            ", ".join(f"{result}: {count}" for count, result in sorted(found, reverse=True)),
        )
        for key, found in sorted(results.items())
    ]


def table(outcome: AttackResults) -> Table:
    shown = Table("endpoint", "attack", "requests", "answers")
    for endpoint, kind, count, results in rows(outcome):
        shown.add_row(endpoint, kind, str(count), results)
    return shown


def markdown(outcome: AttackResults) -> list[str]:
    lines = ["| door | attack | requests | answers |", "|---|---|---:|---|"]
    return lines + [
        f"| {endpoint} | {kind} | {count} | {results} |" for endpoint, kind, count, results in rows(outcome)
    ]


def summary(outcome: AttackResults, seed: int, growth_kib: int) -> str:
    return (
        f"Seed {seed}: {outcome.requests} bad requests, {len(outcome.findings)} findings. "
        f"{outcome.honest_count} honest deliveries in between, each answered 200 within "
        f"{outcome.honest_seconds_max:.1f} s. All web processes together grew by {growth_kib / 1024:.0f} MiB."
    )


if __name__ == "__main__":
    sys.exit(main())
