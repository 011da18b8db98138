"""Fuzz a production-like stack: python -m tests.fuzz --requests 200000 --seed 7

Print the results by endpoint, kind and response. The exit status is 1 if there is any finding.
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
from tests.fuzz.stack import ledger_violations, production_stack, web_memory_kib

FINDINGS_SHOWN_MAX = 20


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**9, help="repeats a run")
    parser.add_argument("--markdown", action="store_true", help="print the table for docs/security.md")
    options = parser.parse_args()
    console = Console(stderr=True)
    console.print(f"Seed {options.seed}: {options.requests} malformed requests")
    with tempfile.TemporaryDirectory() as folder, production_stack(Path(folder)) as stack:
        attacker = Attacker(stack.port, options.seed)
        before = web_memory_kib(stack)
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("attacks", total=options.requests)
            results = attacker.run(options.requests, lambda: bar.advance(task))
        after = web_memory_kib(stack)
        results.findings += ledger_violations(stack, results.valid_kopecks)
    summary_line = summary(results, options.seed, after - before)
    if options.markdown:
        sys.stdout.write("\n".join([*markdown(results), "", summary_line, ""]))
    else:
        Console().print(table(results), summary_line)
    for finding in results.findings[:FINDINGS_SHOWN_MAX]:
        console.print(finding, markup=False)
    return 1 if results.findings else 0


def rows(results: AttackResults) -> list[tuple[str, str, int, str]]:
    """Return (endpoint, kind, requests, results with their counts)."""
    responses: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
    for (endpoint, kind, result), count in results.table.items():
        responses[endpoint, kind].append((count, result))
    return [
        (
            *key,
            sum(count for count, _ in found),
            ", ".join(f"{result}: {count}" for count, result in sorted(found, reverse=True)),
        )
        for key, found in sorted(responses.items())
    ]


def table(results: AttackResults) -> Table:
    rendered = Table("endpoint", "attack", "requests", "responses")
    for endpoint, kind, count, responses in rows(results):
        rendered.add_row(endpoint, kind, str(count), responses)
    return rendered


def markdown(results: AttackResults) -> list[str]:
    lines = ["| endpoint | attack | requests | responses |", "|---|---|---:|---|"]
    return lines + [
        f"| {endpoint} | {kind} | {count} | {responses} |"
        for endpoint, kind, count, responses in rows(results)
    ]


def summary(results: AttackResults, seed: int, growth_kib: int) -> str:
    return (
        f"Seed {seed}: {results.requests} malformed requests, {len(results.findings)} findings. "
        f"{results.valid_count} valid deliveries in between, each answered 200 within "
        f"{results.valid_seconds_max:.1f} s. All web processes together grew by {growth_kib / 1024:.0f} MiB."
    )


if __name__ == "__main__":
    sys.exit(main())
