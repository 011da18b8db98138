"""Reverse the payment of an operation from the command line."""

from typing import Any

from ingest.command_line import CorrectionCommand
from ingest.models import OperatorAction


class Command(CorrectionCommand):
    help = "Take back the payment of an operation by a reversal, with an entry in the audit trail."

    def handle(self, *_: Any, **options: Any) -> None:
        self.correct(OperatorAction.Kind.REVERSE, options)
