"""Results of scenarios as a line, a table, JSON, and the Markdown tables of docs/reliability.md."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from faults.scenario_run import RESULTS, Result

VIOLATIONS_SHOWN_MAX = 5
COUNTED = ("requests", "ok", "refused", "unknown", "faults")


def format_line(result: Result) -> str:
    verdict = "[red]RED[/red]" if result.violations else "[green]green[/green]"
    more = len(result.violations) - VIOLATIONS_SHOWN_MAX
    violations = [*result.violations[:VIOLATIONS_SHOWN_MAX], *([f"… and {more} more"] if more > 0 else [])]
    what = f"{verdict:18} {result.scenario}, {result.seconds} s, {result.rate} deliveries/s"
    return "\n    ".join([what, *map(escape, [*result.notes, *violations])])


def results_table(results: Sequence[Result]) -> Table:
    table = Table("scenario", title="Faults", title_justify="left", show_footer=True)
    total = totals(results)
    for name in COUNTED:
        table.add_column(name, footer=str(total[name]), justify="right")
    table.add_column("drained after", justify="right")
    table.add_column("verdict", footer=f"{total['red']} red")
    for each in results:
        counts = (each.requests, each.ok, each.refused, each.unknown, len(each.injected))
        verdict = "[red]RED[/red]" if each.violations else "[green]green[/green]"
        table.add_row(each.scenario, *map(str, counts), f"{each.drain_seconds:.1f} s", verdict)
    return table


def totals(results: Sequence[Result]) -> dict[str, int]:
    counted = {name: sum(getattr(each, name) for each in results) for name in ("requests", "ok", "refused")}
    return {
        **counted,
        "unknown": sum(each.unknown for each in results),
        "faults": sum(len(each.injected) for each in results),
        "red": sum(bool(each.violations) for each in results),
    }


def save_results(name: str, summary: Mapping[str, object], results: Sequence[Result]) -> Path:
    """Write the results as JSON; return the file."""
    RESULTS.mkdir(exist_ok=True)
    saved = {"when": datetime.now(UTC).isoformat(timespec="seconds"), **summary}
    if results:
        saved["scenarios"] = [asdict(result) for result in results]
    file = RESULTS / f"{name}.json"
    file.write_text(json.dumps(saved, indent=1, ensure_ascii=False) + "\n")
    return file


def markdown_table(saved: Mapping[str, Any]) -> str:
    """Return the table of a saved run, of scenarios or of seeded bugs."""
    lines = _bugs_table(saved["runs"]) if "runs" in saved else _scenarios_table(saved)
    return "\n".join([f"Seed {saved['seed']}; {saved['when'][:10]}.", "", *lines])


def _scenarios_table(saved: Mapping[str, Any]) -> Iterator[str]:
    yield _row("scenario", *COUNTED, "drained after", "verdict")
    yield "|---|" + "---:|" * (len(COUNTED) + 1) + "---|"
    for each in saved["scenarios"]:
        counts = (*(each[name] for name in COUNTED[:-1]), len(each["injected"]))
        verdict = ", ".join(["red" if each["violations"] else "green", *each.get("notes", [])])
        yield _row(f"`{each['scenario']}`", *counts, f"{each['drain_seconds']:.1f} s", verdict)
    total = saved["totals"]
    yield _row("in all", *(total[name] for name in COUNTED), "", f"{total['red']} red")


def _bugs_table(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield _row("bug", "effect", "detected by")
    yield "|---|---|---|"
    for each in runs:
        yield _row(f"`{each['bug']}`", each["description"], each["detected_by"] or "NOT DETECTED")


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |".replace("|  |", "| |")
