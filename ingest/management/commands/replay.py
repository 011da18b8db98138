"""Replay failed webhooks from the command line."""

import argparse
import getpass
import os
from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.progress import Progress

from core.cli import aware_datetime
from ingest.models import Webhook
from ingest.operator_actions import CHUNK_WEBHOOKS
from ingest.replay import ReplayResult, count_by_status, replay
from ledger.operation_id import parse_operation_id

COMMAND_LINE = "command-line"
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
            type=_operation_id,
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
        by_name = f"{_account()} ({COMMAND_LINE})"
        return replay(
            webhook_ids, _command_line_user(), reason, by_name, lambda done: progress.advance(task, done)
        )


def _command_line_user() -> User:
    """Return the user that stands for everyone with a shell: an operator action needs a user."""
    no_login = {"is_active": False, "password": make_password(None)}
    return User.objects.get_or_create(username=COMMAND_LINE, defaults=no_login)[0]


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container the uid may have no account
        return f"user {os.getuid()}"


def _operation_id(text: str) -> UUID:
    operation_id = parse_operation_id(text)
    if operation_id is None:
        raise argparse.ArgumentTypeError(f"not a UUID: {text}")
    return operation_id
