"""Prove that the ledger is right, and agrees with the inbox."""

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
PASSES = 5  # over lines, payments, payments once more, webhooks, their bodies
BAR_AFTER_SECONDS = 1.0


class Command(BaseCommand):
    help = (
        "Prove, while workers go on posting, that each organization's balance is the sum of its log, that "
        "the log runs 1, 2, 3 … without a gap, each line following from the one before, that log, payments "
        "and webhooks agree, and that webhooks say what their kept bodies say. Reads small pages, locks "
        "nothing, names the first hundred drifts and counts the others. Exit code: 0 all is right, 1 drift, "
        "2 the database could not be read."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one JSON object; amounts are kopecks")
        parser.add_argument(
            "--incremental",
            action="store_true",
            help="only what is new since the last verification without drift, and every balance",
        )

    def handle(self, *_: Any, **options: Any) -> None:
        watch = _Watch()
        try:
            result = verification.verify_ledger(watch.progress, is_full=not options["incremental"])
        except DatabaseError as exc:
            raise CommandError(f"The ledger could not be read: {exc}", returncode=2) from exc
        finally:
            watch.bar.stop()
        self._keep(result)
        figures = _figures(watch.rows, result)
        self.stdout.write((_as_json if options["json"] else _in_words)(result, figures))
        if result.drifts:
            sys.exit(1)

    def _keep(self, result: Result) -> None:
        """A user who may only read the database still gets the result here."""
        try:
            verification.save(result)
        except DatabaseError as exc:
            self.stderr.write(f"The result could not be kept for the dashboard: {exc}")


class _Watch:
    """Counts the rows that were looked at; a long run at a terminal gets a bar."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self.rows: Counter[str] = Counter()
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        console = Console(stderr=True)
        self.bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)

    def progress(self, what: str, rows: int) -> None:
        self.rows[what] += rows
        if not self.bar.tasks and time.monotonic() - self._started > BAR_AFTER_SECONDS:
            lines = Organization.objects.aggregate(lines=Sum("last_seq"))["lines"]
            self.bar.add_task(what, total=PASSES * int(lines))
            self.bar.start()
        for task in self.bar.task_ids:
            self.bar.update(task, description=what, completed=self.rows.total())


def _figures(rows: Counter[str], result: Result) -> dict[str, float]:
    """Each table's rows, counted once however many passes there were, and the speed."""
    seconds = result.verification.duration.total_seconds()
    counts = {table: rows[table] for table in TABLES}
    speed = round(sum(counts.values()) / seconds)
    return counts | {"seconds": round(seconds, 3), "rows_per_second": speed}


def _as_json(result: Result, figures: dict[str, float]) -> str:
    drifts = [_for_programs(drift) for drift in result.drifts]
    told = {
        "right": not drifts,
        "drift": drifts[0] if drifts else None,
        "drifts": drifts,
        "drifts_found": result.verification.drifts_found,
        "whole": result.verification.is_full,
    }
    return json.dumps(told | figures, default=str, ensure_ascii=False)


def _for_programs(drift: Drift) -> dict[str, Any]:
    return {**asdict(drift), "sentence": str(drift)}


def _in_words(result: Result, figures: dict[str, float]) -> str:
    rows = ", ".join(f"{figures[table]:,} {table}" for table in TABLES)
    new = "" if result.verification.is_full else "new: "
    looked = f"{new}{rows} in {figures['seconds']:.1f} s, {figures['rows_per_second']:,} rows/s"
    if not result.drifts:
        return f"All is right: {looked}"
    found, shown = result.verification.drifts_found, len(result.drifts)
    at_least = "at least " if found == verification.DRIFTS_COUNTED_MAX else ""
    more = [f"{at_least}{found:,} drifts, of which these are the first {shown}"] if found > shown else []
    return "\n".join([*(f"Drift: {drift}" for drift in result.drifts), *more, f"Looked at {looked}"])
