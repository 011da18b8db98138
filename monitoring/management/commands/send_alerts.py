"""Look for troubles once, from outside, or try whether alerts arrive."""

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, InterfaceError

from monitoring import alerts, notifications


class Command(BaseCommand):
    help = (
        "Look once for what is wrong, and tell ALERT_EMAILS and ALERT_WEBHOOK_URL what is due, as scheduler "
        "and workers do by themselves. For cron, each minute, where both may be dead. Exit code: 0 done, or "
        "somebody else has just looked; 1 nobody could be told, or the database failed."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--test", action="store_true", help="send a trial message instead")

    def handle(self, *_: Any, **options: Any) -> None:
        if not notifications.is_configured():
            raise CommandError(
                "Nobody is to be told: set ALERT_EMAILS or ALERT_WEBHOOK_URL; see .env.example."
            )
        try:
            told, words = self._try() if options["test"] else self._look()
        except (DatabaseError, InterfaceError) as fault:
            raise CommandError(f"The database failed: {fault}") from fault
        self.stdout.write(words)
        if not told:
            sys.exit(1)

    def _try(self) -> tuple[bool, str]:
        told = alerts.send_test()
        return (
            told,
            "The trial message was taken." if told else "Nobody took the trial message; the log says why.",
        )

    def _look(self) -> tuple[bool, str]:
        looked = alerts.check()
        return looked is not alerts.CheckResult.UNDELIVERED, looked.value
