"""Delete expired data."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, InterfaceError
from rich.console import Console
from rich.progress import Progress, TextColumn

from worker import retention


class Command(BaseCommand):
    help = (
        "Delete raw bodies, delivery records and task results older than RAW_BODY_RETENTION_DAYS, "
        "DELIVERY_RETENTION_DAYS and TASK_RESULT_RETENTION_DAYS (0: keep forever), and expired sessions. "
        "Payments and balance log entries are never deleted, nor are bodies of webhooks that are received or "
        "failed. The scheduler does the same every ten minutes, a little at a time; this command may run "
        "concurrently and be interrupted at any time. Exit code: 0 done, 1 database error."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--dry-run", action="store_true", help="only print how many rows would be deleted"
        )

    def handle(self, *_: Any, **options: Any) -> None:
        try:
            rows = retention.count_expired() if options["dry_run"] else _prune()
        except (DatabaseError, InterfaceError) as exc:
            raise CommandError(f"Database error: {exc}") from exc
        verb = "would be deleted" if options["dry_run"] else "deleted"
        for rule in retention.rules(full_scan=True):
            self.stdout.write(f"{rule.name}, {rule.retention_text}: {rows.get(rule.name, 0)} {verb}")


def _prune() -> dict[str, int]:
    deleted: dict[str, int] = {}
    console = Console(stderr=True)
    text = TextColumn("{task.description}")
    with Progress(text, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("Scanning", total=None)

        def on_progress(rule: retention.RetentionRule, rows: int) -> None:
            deleted[rule.name] = deleted.get(rule.name, 0) + rows
            progress.update(task, description=f"{rule.name}: {deleted[rule.name]} deleted")

        retention.prune(on_progress, full_scan=True)
    return deleted
