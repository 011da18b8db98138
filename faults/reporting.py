"""What the scenarios came to: as a line, as a table, as JSON, and as the tables of docs/reliability.md."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from faults.scenario_run import RESULTS, Result

SENTENCES_SHOWN_MAX = 5
COUNTED = ("requests", "ok", "refused", "unknown", "faults")


def format_line(result: Result) -> str:
    verdict = "[red]RED[/red]" if result.broken else "[green]green[/green]"
    more = len(result.broken) - SENTENCES_SHOWN_MAX
    sentences = [*result.broken[:SENTENCES_SHOWN_MAX], *([f"… and {more} more"] if more > 0 else [])]
    return "\n    ".join([f"{verdict:18} {result.scenario}, {result.seconds} s", *map(escape, sentences)])


def results_table(results: Sequence[Result]) -> Table:
    table = Table("scenario", title="Faults", title_justify="left", show_footer=True)
    total = totals(results)
    for name in COUNTED:
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


def save_results(name: str, figures: Mapping[str, object], results: Sequence[Result]) -> Path:
    """As JSON; the file."""
    RESULTS.mkdir(exist_ok=True)
    kept = {"when": datetime.now(UTC).isoformat(timespec="seconds"), **figures}
    if results:
        kept["scenarios"] = [asdict(result) for result in results]
    file = RESULTS / f"{name}.json"
    file.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    return file


def markdown_table(kept: Mapping[str, Any]) -> str:
    """The table of a run that `keep` has kept, of scenarios or of planted bugs."""
    lines = _of_planted(kept["runs"]) if "runs" in kept else _of_scenarios(kept)
    return "\n".join([f"Seed {kept['seed']}; {kept['when'][:10]}.", "", *lines])


def _of_scenarios(kept: Mapping[str, Any]) -> Iterator[str]:
    yield _row("scenario", *COUNTED, "quiet after", "verdict")
    yield "|---|" + "---:|" * (len(COUNTED) + 1) + "---|"
    for each in kept["scenarios"]:
        counts = (*(each[name] for name in COUNTED[:-1]), len(each["strikes"]))
        verdict = "red" if each["broken"] else "green"
        yield _row(f"`{each['scenario']}`", *counts, f"{each['quiet_seconds']:.1f} s", verdict)
    total = kept["totals"]
    yield _row("in all", *(total[name] for name in COUNTED), "", f"{total['red']} red")


def _of_planted(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield _row("planted", "what it does", "seen by")
    yield "|---|---|---|"
    for each in runs:
        yield _row(f"`{each['planted']}`", each["sentence"], each["seen_by"] or "NOT SEEN")


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |".replace("|  |", "| |")
