"""Replay failed webhooks from the command line."""

from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.progress import Progress

from core.cli import aware_datetime
from ingest import command_line
from ingest.command_line import COMMAND_LINE
from ingest.models import Webhook
from ingest.operator_actions import CHUNK_WEBHOOKS
from ingest.replay import ReplayResult, count_by_status, replay

NO_REASON = "none given"


class Command(BaseCommand):
    help = (
        "Return failed webhooks to the queue with all attempts. Webhooks in any other status are skipped, so "
        "the command is idempotent. Each replay is recorded in the audit trail under the user "
        f"'{COMMAND_LINE}', who cannot log in, with the name of your account on this machine. "
        "Exit code: 0 done, 1 an id is unknown (the others were replayed), 2 invalid options."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        selection = parser.add_mutually_exclusive_group(required=True)
        selection.add_argument(
            "--id",
            type=command_line.operation_id,
            action="append",
            dest="operation_ids",
            metavar="OPERATION_ID",
            help="a UUID in any usual format; may be repeated",
        )
        selection.add_argument("--failed", action="store_true", help="all failed webhooks")
        parser.add_argument(
            "--since",
            type=aware_datetime,
            metavar="WHEN",
            help="with --failed: only webhooks received since then; ISO 8601, UTC unless it has an offset",
        )
        parser.add_argument("--reason", default=NO_REASON, help="recorded in the audit trail")
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="print what would be done; a later run with --failed also replays what fails in between",
        )

    def handle(self, *_: Any, **options: Any) -> None:
        if options["since"] and not options["failed"]:
            raise CommandError("--since requires --failed", returncode=2)
        requested: set[UUID] = set(options["operation_ids"] or ())
        webhooks = _failed(options["since"]) if options["failed"] else _known(requested)
        if options["dry_run"]:
            counts = count_by_status(webhooks.values())
            failed = counts.pop(Webhook.Status.FAILED, 0)
            self.stdout.write(f"Dry run: {ReplayResult(failed, counts)}.")
        else:
            self.stdout.write(f"Webhooks: {_replay(webhooks.values(), options['reason'])}.")
        if unknown := requested - webhooks.keys():
            raise CommandError(f"no webhook with operation id {', '.join(sorted(map(str, unknown)))}")


def _failed(since: datetime | None) -> dict[UUID, int]:
    """Return primary keys by operation id."""
    failed = Webhook.objects.failed()
    if since:
        failed = failed.filter(received_at__gte=since)
    return dict(failed.values_list("operation_id", "id"))


def _known(operation_ids: Collection[UUID]) -> dict[UUID, int]:
    known = Webhook.objects.filter(operation_id__in=operation_ids)
    return dict(known.values_list("operation_id", "id"))


def _replay(webhook_ids: Collection[int], reason: str) -> ReplayResult:
    console = Console(stderr=True)
    hidden = len(webhook_ids) <= CHUNK_WEBHOOKS or not console.is_terminal
    with Progress(console=console, disable=hidden) as progress:
        task = progress.add_task("Replaying", total=len(webhook_ids))
        reason = reason.strip() or NO_REASON
        by_name = command_line.by_name()
        return replay(
            webhook_ids, command_line.user(), reason, by_name, lambda done: progress.advance(task, done)
        )
