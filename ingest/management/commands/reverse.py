"""Reverse the payment of an operation from the command line."""

from typing import Any

from django.core.management.base import CommandParser

from ingest.command_line import CorrectionCommand
from ingest.models import OperatorAction


class Command(CorrectionCommand):
    help = (
        "Take back the payment of an operation by a reversal, or with --undo post a reversed one again, with "
        "an entry in the audit trail."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--undo", action="store_true", help="post the reversed payment again")

    def handle(self, *_: Any, **options: Any) -> None:
        kind = OperatorAction.Kind.RESTORE if options["undo"] else OperatorAction.Kind.REVERSE
        self.correct(kind, options)
