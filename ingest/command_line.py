"""Operator actions from the command line: who acts, and the commands that correct one payment."""

import argparse
import getpass
import os
from functools import partial
from typing import Any
from uuid import UUID

from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, InterfaceError

from core.db import transactions
from ingest import correction_actions, operator_actions
from ingest.models import OperatorAction, OperatorActionItem, Webhook
from ledger.exceptions import CorrectionRefused
from ledger.money import format_rubles
from ledger.operation_id import parse_operation_id

COMMAND_LINE = "command-line"


def user() -> User:
    """Return the user that stands for everyone with a shell: an operator action needs a user."""
    no_login = {"is_active": False, "password": make_password(None)}
    return User.objects.get_or_create(username=COMMAND_LINE, defaults=no_login)[0]


def by_name() -> str:
    """Return the name of the account on this machine, for the audit trail."""
    try:
        account = getpass.getuser()
    except (KeyError, OSError):  # in a container the uid may have no account
        account = f"user {os.getuid()}"
    return f"{account} ({COMMAND_LINE})"


def operation_id(text: str) -> UUID:
    parsed = parse_operation_id(text)
    if parsed is None:
        raise argparse.ArgumentTypeError(f"not a UUID: {text}")
    return parsed


class CorrectionCommand(BaseCommand):
    """Correct the payment of one operation, and print the balances before and after.

    A dry run changes nothing. Exit code: 0 done, 1 refused or unknown.
    """

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("operation_id", type=operation_id, help="a UUID in any usual format")
        parser.add_argument("--reason", required=True, help="recorded in the audit trail")
        parser.add_argument("--dry-run", action="store_true", help="print what would be done")

    def correct(self, kind: OperatorAction.Kind, options: dict[str, Any], inn: str = "") -> None:
        webhook = Webhook.objects.filter(operation_id=options["operation_id"]).first()
        if webhook is None:
            raise CommandError(f"no webhook with operation id {options['operation_id']}")
        try:
            plan = correction_actions.plan(kind, webhook, inn)
        except CorrectionRefused as exc:
            raise CommandError(f"refused: {exc}") from exc
        balances = plan.balances()
        if not options["dry_run"]:
            self._run(OperatorAction(kind=kind, by=user(), by_name=by_name(), inn=inn), webhook, options)
        for changed, before, after in balances:
            prefix = "would change: " if options["dry_run"] else ""
            self.stdout.write(f"{prefix}{changed}: {format_rubles(before)} → {format_rubles(after)}")

    def _run(self, action: OperatorAction, webhook: Webhook, options: dict[str, Any]) -> None:
        operator_actions.create_for_ids(action, [webhook.pk], options["reason"])
        try:
            while transactions.run_with_retries(partial(operator_actions.run_chunk, action.pk, wait=True)):
                pass
        except (DatabaseError, InterfaceError) as exc:
            text = f"recorded as operator action {action.pk}, which a worker carries out: {exc}"
            raise CommandError(text) from exc
        if OperatorActionItem.objects.get(action=action).outcome != OperatorActionItem.Outcome.DONE:
            raise CommandError("refused: the operation was corrected by someone else at this moment")
