"""Verify the ledger, and reconcile it with the inbox."""

import json
import sys
import time
from collections import Counter
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError
from django.db.models import Sum
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ingest import verification
from ingest.verification import Result
from ledger.models import Organization
from ledger.verification import Drift

TABLES = ("organizations", "entries", "payments", "webhooks")
PASSES = 5  # over entries, payments, payments again, webhooks, their bodies
BAR_AFTER_SECONDS = 1.0


class Command(BaseCommand):
    help = (
        "Verify, while workers continue posting, that each organization's balance is the sum of its log, "
        "that the log is numbered 1, 2, 3 … without a gap and each entry follows from the one before, that "
        "log, payments and webhooks agree, and that webhooks have the terms of their stored bodies. Reads "
        "small pages, locks nothing, prints the first hundred drifts and counts the others. Exit code: 0 all "
        "is right, 1 drift, 2 the database could not be read."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one JSON object; amounts are kopecks")
        parser.add_argument(
            "--incremental",
            action="store_true",
            help="verify only what is new since the last verification without drift, and every balance",
        )

    def handle(self, *_: Any, **options: Any) -> None:
        progress = _ProgressBar()
        try:
            result = verification.verify_ledger(progress.advance, is_full=not options["incremental"])
        except DatabaseError as exc:
            raise CommandError(f"The ledger could not be read: {exc}", returncode=2) from exc
        finally:
            progress.bar.stop()
        self._save(result)
        stats = _stats(progress.rows, result)
        self.stdout.write((_as_json if options["json"] else _as_text)(result, stats))
        if result.drifts:
            sys.exit(1)

    def _save(self, result: Result) -> None:
        """Save the result; a read-only database user still gets it printed."""
        try:
            verification.save(result)
        except DatabaseError as exc:
            self.stderr.write(f"The result could not be saved for the dashboard: {exc}")


class _ProgressBar:
    """Counts scanned rows; a long run in a terminal shows a progress bar."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self.rows: Counter[str] = Counter()
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        console = Console(stderr=True)
        self.bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)

    def advance(self, what: str, rows: int) -> None:
        self.rows[what] += rows
        if not self.bar.tasks and time.monotonic() - self._started > BAR_AFTER_SECONDS:
            entries = Organization.objects.aggregate(entries=Sum("last_seq"))["entries"]
            self.bar.add_task(what, total=PASSES * int(entries or 0))
            self.bar.start()
        for task in self.bar.task_ids:
            self.bar.update(task, description=what, completed=self.rows.total())


def _stats(rows: Counter[str], result: Result) -> dict[str, float]:
    """Return the rows of each table, counted once for all passes, and the speed."""
    seconds = result.verification.duration.total_seconds()
    counts = {table: rows[table] for table in TABLES}
    speed = round(sum(counts.values()) / seconds)
    return counts | {"seconds": round(seconds, 3), "rows_per_second": speed}


def _as_json(result: Result, stats: dict[str, float]) -> str:
    drifts = [_drift_fields(drift) for drift in result.drifts]
    fields = {
        "right": not drifts,
        "drift": drifts[0] if drifts else None,
        "drifts": drifts,
        "drifts_found": result.verification.drifts_found,
        "full": result.verification.is_full,
    }
    return json.dumps(fields | stats, default=str, ensure_ascii=False)


def _drift_fields(drift: Drift) -> dict[str, Any]:
    return {**asdict(drift), "sentence": str(drift)}


def _as_text(result: Result, stats: dict[str, float]) -> str:
    rows = ", ".join(f"{stats[table]:,} {table}" for table in TABLES)
    new = "" if result.verification.is_full else "new: "
    scanned = f"{new}{rows} in {stats['seconds']:.1f} s, {stats['rows_per_second']:,} rows/s"
    if not result.drifts:
        return f"All is right: {scanned}"
    found, shown = result.verification.drifts_found, len(result.drifts)
    at_least = "at least " if found == verification.DRIFTS_COUNTED_MAX else ""
    more = [f"{at_least}{found:,} drifts, the first {shown} of them above"] if found > shown else []
    return "\n".join([*(f"Drift: {drift}" for drift in result.drifts), *more, f"Scanned {scanned}"])
