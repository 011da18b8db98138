"""Prove that the ledger is right, and agrees with the inbox."""

import json
import sys
import time
from collections import Counter
from dataclasses import asdict
from datetime import timedelta
from itertools import chain
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError
from django.db.models import Sum
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ingest.models import Verification
from ingest.reconciliation import reconcile
from ledger.models import Organization
from ledger.verification import Drift, verify

TABLES = ("organizations", "lines", "payments", "webhooks")
PASSES = 4  # over lines, payments, payments once more, webhooks
BAR_AFTER_SECONDS = 1.0
KEPT_MAX = 1000  # results


class Command(BaseCommand):
    help = (
        "Prove, while workers go on posting, that each organization's balance is the sum of its log, that "
        "the log runs 1, 2, 3 … without a gap, each line following from the one before, and that log, "
        "payments and webhooks agree. Reads small pages, locks nothing, stops at the first drift and names "
        "it. Exit code: 0 all is right, 1 drift, 2 the database could not be read."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one JSON object; amounts are kopecks")

    def handle(self, *_: Any, **options: Any) -> None:
        watch = _Watch()
        try:
            drift = next(chain(verify(watch.progress), reconcile(watch.progress)), None)
        except DatabaseError as error:
            raise CommandError(f"The ledger could not be read: {error}", returncode=2) from error
        finally:
            watch.bar.stop()
        self._keep(drift, watch)
        self.stdout.write((_as_json if options["json"] else _in_words)(drift, watch.figures()))
        if drift:
            sys.exit(1)

    def _keep(self, drift: Drift | None, watch: "_Watch") -> None:
        """For the dashboard. Whoever may only read the database still learns the result here."""
        try:
            kept = Verification.objects.create(
                took=watch.took, rows_looked_at=watch.rows.total(), drift=str(drift or "")
            )
            Verification.objects.filter(pk__lte=kept.pk - KEPT_MAX).delete()
        except DatabaseError as error:
            self.stderr.write(f"The result could not be kept for the dashboard: {error}")


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

    @property
    def took(self) -> timedelta:
        return timedelta(seconds=time.monotonic() - self._started)

    def figures(self) -> dict[str, float]:
        """Each table's rows, counted once however many passes there were, and the speed."""
        seconds = self.took.total_seconds()
        counts = {table: self.rows[table] for table in TABLES}
        speed = round(sum(counts.values()) / seconds)
        return counts | {"seconds": round(seconds, 3), "rows_per_second": speed}


def _as_json(drift: Drift | None, figures: dict[str, float]) -> str:
    told = drift and {**asdict(drift), "sentence": str(drift)}
    return json.dumps({"right": drift is None, "drift": told, **figures}, default=str, ensure_ascii=False)


def _in_words(drift: Drift | None, figures: dict[str, float]) -> str:
    rows = ", ".join(f"{figures[table]:,} {table}" for table in TABLES)
    looked = f"{rows} in {figures['seconds']:.1f} s, {figures['rows_per_second']:,} rows/s"
    return f"Drift: {drift}\nLooked at {looked}" if drift else f"All is right: {looked}"
