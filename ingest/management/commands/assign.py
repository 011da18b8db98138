"""Assign a payment in suspense to an organization from the command line."""

import argparse
from typing import Any

from django.core.management.base import CommandParser

from ingest.command_line import CorrectionCommand
from ingest.models import OperatorAction
from ledger.inn import is_inn


class Command(CorrectionCommand):
    help = (
        "Move the payment of an operation from suspense to an organization, or with --undo back to suspense."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        target = parser.add_mutually_exclusive_group(required=True)
        target.add_argument("--inn", type=_inn, help="the organization's INN")
        target.add_argument("--undo", action="store_true", help="return the payment to suspense")

    def handle(self, *_: Any, **options: Any) -> None:
        kind = OperatorAction.Kind.UNASSIGN if options["undo"] else OperatorAction.Kind.ASSIGN
        self.correct(kind, options, options["inn"] or "")


def _inn(text: str) -> str:
    if not is_inn(text):
        raise argparse.ArgumentTypeError(f"not an INN of 10 or 12 digits: {text}")
    return text
