"""Let go of what is older than its time."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, InterfaceError
from rich.console import Console
from rich.progress import Progress, TextColumn

from worker import retention


class Command(BaseCommand):
    help = (
        "Let go of raw bodies, kept deliveries and results of tasks that are older than RAW_BODY_RETENTION_DAYS, "
        "DELIVERY_RETENTION_DAYS and TASK_RESULT_RETENTION_DAYS (0: for ever), and of expired sessions. Payments and "
        "balance log lines stay, and so do the bodies of webhooks that are received or failed. The scheduler "
        "does the same every ten minutes, a little at a time; this may run beside it, and be stopped at any "
        "moment. Exit code: 0 done, 1 the database failed."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="only say how much would go")

    def handle(self, *_: Any, **options: Any) -> None:
        try:
            done = retention.count_expired() if options["dry_run"] else _prune()
        except (DatabaseError, InterfaceError) as fault:
            raise CommandError(f"The database failed: {fault}") from fault
        verb = "would go" if options["dry_run"] else "gone"
        for kind in retention.rules(full_scan=True):
            self.stdout.write(f"{kind.name}, {kind.kept}: {done.get(kind.name, 0)} {verb}")


def _prune() -> dict[str, int]:
    done: dict[str, int] = {}
    console = Console(stderr=True)
    text = TextColumn("{task.description}")
    with Progress(text, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("Looking", total=None)

        def watch(kind: retention.RetentionRule, rows: int) -> None:
            done[kind.name] = done.get(kind.name, 0) + rows
            progress.update(task, description=f"{kind.name}: {done[kind.name]} gone")

        retention.prune(watch, full_scan=True)
    return done
