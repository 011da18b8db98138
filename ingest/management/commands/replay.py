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
        "Put failed webhooks back into the inbox, with all their attempts. Only failed ones move: an applied "
        "webhook is left alone, so replaying twice does no harm. Each replay is kept in the audit trail, "
        f"under the user '{COMMAND_LINE}', who can't log in, with the name of your account on this machine. "
        "Exit code: 0 done, 1 an id is unknown (the others were replayed), 2 unusable options."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument(
            "--id",
            type=_operation_id,
            action="append",
            dest="operation_ids",
            metavar="OPERATION_ID",
            help="a UUID in any usual spelling; may be given several times",
        )
        which.add_argument("--failed", action="store_true", help="all that are failed")
        parser.add_argument(
            "--since",
            type=aware_datetime,
            metavar="WHEN",
            help="with --failed: only webhooks received since; ISO 8601, in UTC unless it has an offset",
        )
        parser.add_argument("--reason", default=NO_REASON, help="kept in the audit trail")
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="only say what would be done; a later run with --failed also replays what failed in between",
        )

    def handle(self, *_: Any, **options: Any) -> None:
        if options["since"] and not options["failed"]:
            raise CommandError("--since goes with --failed", returncode=2)
        wanted: set[UUID] = set(options["operation_ids"] or ())
        webhooks = _failed(options["since"]) if options["failed"] else _known(wanted)
        if options["dry_run"]:
            states = count_by_status(webhooks.values())
            would = states.pop(Webhook.Status.FAILED, 0)
            self.stdout.write(f"Would be: {ReplayResult(would, states)}.")
        else:
            self.stdout.write(f"Webhooks: {_replay(webhooks.values(), options['reason'])}.")
        if unknown := wanted - webhooks.keys():
            raise CommandError(f"no webhook with operation id {', '.join(sorted(map(str, unknown)))}")


def _failed(since: datetime | None) -> dict[UUID, int]:
    """Primary keys by operation id."""
    failed = Webhook.objects.failed()
    if since:
        failed = failed.filter(received_at__gte=since)
    return dict(failed.values_list("operation_id", "id"))


def _known(operation_ids: Collection[UUID]) -> dict[UUID, int]:
    known = Webhook.objects.filter(operation_id__in=operation_ids)
    return dict(known.values_list("operation_id", "id"))


def _replay(webhook_ids: Collection[int], reason: str) -> ReplayResult:
    console = Console(stderr=True)
    silent = len(webhook_ids) <= CHUNK_WEBHOOKS or not console.is_terminal
    with Progress(console=console, disable=silent) as progress:
        task = progress.add_task("Replaying", total=len(webhook_ids))
        reason = reason.strip() or NO_REASON
        by_name = f"{_account()} ({COMMAND_LINE})"
        return replay(
            webhook_ids, _command_line(), reason, by_name, lambda done: progress.advance(task, done)
        )


def _command_line() -> User:
    """Stands for everybody with a shell in the audit trail, whose acts need a user."""
    nobody_logs_in = {"is_active": False, "password": make_password(None)}
    return User.objects.get_or_create(username=COMMAND_LINE, defaults=nobody_logs_in)[0]


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that no account has
        return f"user {os.getuid()}"


def _operation_id(text: str) -> UUID:
    operation_id = parse_operation_id(text)
    if operation_id is None:
        raise argparse.ArgumentTypeError(f"not a UUID: {text}")
    return operation_id
