"""Run the fault suite: each scenario on a house of its own, with a table of what they came to."""

import argparse
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from fnmatch import fnmatch

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from faults.house import missing
from faults.planted import PLANTED
from faults.scenarios import SCENARIOS
from faults.stage import RESULTS, Result, Scenario, play
from tests.servers import NOT_WITHOUT_SERVERS, ROOT, servers_are_required

SENTENCES_SHOWN_MAX = 5
WIDTH = 110
console = Console(highlight=False, width=WIDTH)


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 0 all green (with --planted: all seen), 1 anything else."""
    options = parse(arguments)
    if options.list:
        return say_what_there_is()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    console.print(f"Seed {seed}; the same seed repeats the same deliveries and the same schedule of faults.")
    if options.planted:
        return run_planted(options.names, seed)
    return run_scenarios(options.names, seed, options.minutes)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help="scenarios, also with *; all unless given")
    parser.add_argument("--seed", type=int, help="new unless given")
    parser.add_argument("--minutes", type=float, default=0, help="go on with further seeds for that long")
    parser.add_argument("--planted", action="store_true", help="plant bugs instead; each must turn red")
    parser.add_argument("--list", action="store_true", help="say which scenarios and planted bugs there are")
    return parser.parse_args(arguments)


def say_what_there_is() -> int:
    table = Table("name", "what happens", box=None)
    for scenario in SCENARIOS.values():
        table.add_row(scenario.name, scenario.sentence)
    for bug in PLANTED:
        table.add_row(bug.name, bug.sentence)
    console.print(table)
    return 0


def run_scenarios(names: Sequence[str], seed: int, minutes: float) -> int:
    results, skipped = [], {}
    for scenario, its_seed in chosen(names, seed, minutes):
        if lack := lacking_for(scenario):
            skipped[scenario.name] = lack
            console.print(f"!! {scenario.name} does NOT run: {lack}", markup=False)
            continue
        results.append(play(scenario, its_seed))
        console.print(in_a_line(results[-1]))
    console.print(table_of(results))
    keep("latest", {"seed": seed, "skipped": skipped, "totals": totals(results)}, results)
    if skipped and servers_are_required():
        console.print(NOT_WITHOUT_SERVERS)
        return 1
    return 1 if not results or any(result.broken for result in results) else 0


def chosen(patterns: Sequence[str], seed: int, minutes: float) -> Iterator[tuple[Scenario, int]]:
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
    lacks = [] if scenario.house.get("embedded") else missing()
    return "; ".join([*lacks, *filter(None, [scenario.lacks()])])


def run_planted(names: Sequence[str], seed: int) -> int:
    table = Table("planted bug", "scenario", "seen by", "verdict", title="Planted bugs", title_justify="left")
    rows = []
    for bug in (bug for bug in PLANTED if matches(bug.name, names)):
        result, sentence = bug.play(seed)
        rows.append({"planted": bug.name, "sentence": bug.sentence, "seen_by": sentence, **asdict(result)})
        console.print(f"{bug.name}: {sentence or 'NOT SEEN'}", markup=False)
        table.add_row(bug.name, bug.scenario, escape(sentence), "[red]red[/red]" if sentence else "NOT SEEN")
    console.print(table)
    keep("planted", {"seed": seed, "runs": rows}, [])
    return 0 if rows and all(row["seen_by"] for row in rows) else 1


def in_a_line(result: Result) -> str:
    verdict = "[red]RED[/red]" if result.broken else "[green]green[/green]"
    more = len(result.broken) - SENTENCES_SHOWN_MAX
    sentences = [*result.broken[:SENTENCES_SHOWN_MAX], *([f"… and {more} more"] if more > 0 else [])]
    return "\n    ".join([f"{verdict:18} {result.scenario}, {result.seconds} s", *map(escape, sentences)])


def table_of(results: Sequence[Result]) -> Table:
    table = Table("scenario", title="Faults", title_justify="left", show_footer=True)
    total = totals(results)
    for name in ("requests", "ok", "refused", "unknown", "faults"):
        table.add_column(name, footer=str(total[name]), justify="right")
    table.add_column("quiet after", justify="right")
    table.add_column("verdict", footer=f"{total['red']} red")
    for each in results:
        counts = (each.requests, each.ok, each.refused, each.unknown, len(each.strikes))
        verdict = "[red]RED[/red]" if each.broken else "[green]green[/green]"
        table.add_row(each.scenario, *map(str, counts), f"{each.quiet_seconds:.1f} s", verdict)
    return table


def totals(results: Sequence[Result]) -> dict[str, int]:
    counted = {name: sum(getattr(each, name) for each in results) for name in ("requests", "ok", "refused")}
    return {
        **counted,
        "unknown": sum(each.unknown for each in results),
        "faults": sum(len(each.strikes) for each in results),
        "red": sum(bool(each.broken) for each in results),
    }


def keep(name: str, figures: Mapping[str, object], results: Sequence[Result]) -> None:
    RESULTS.mkdir(exist_ok=True)
    kept = {"when": datetime.now(UTC).isoformat(timespec="seconds"), **figures}
    if results:
        kept["scenarios"] = [asdict(result) for result in results]
    file = RESULTS / f"{name}.json"
    file.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    console.print(f"Kept in {file.relative_to(ROOT)}")


if __name__ == "__main__":
    # By way of every `with`, so that nothing is left running.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    os.chdir(ROOT)
    sys.exit(main(sys.argv[1:]))
