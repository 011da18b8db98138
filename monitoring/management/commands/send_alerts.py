import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, InterfaceError

from monitoring import alerts, notifications


class Command(BaseCommand):
    help = (
        "Check for problems once and send the alerts that are due to ALERT_EMAILS and ALERT_WEBHOOK_URL, as "
        "scheduler and workers do by themselves. For cron, each minute, in case none of them is running. "
        "Exit code: 0 done, or another process has just checked; 1 no recipient accepted the message, or "
        "the database failed."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--test", action="store_true", help="send a test message instead")

    def handle(self, *_: Any, **options: Any) -> None:
        if not notifications.is_configured():
            raise CommandError("No recipients: set ALERT_EMAILS or ALERT_WEBHOOK_URL; see .env.example.")
        try:
            succeeded, message = _send_test() if options["test"] else _check()
        except (DatabaseError, InterfaceError) as exc:
            raise CommandError(f"The database failed: {exc}") from exc
        self.stdout.write(message)
        if not succeeded:
            sys.exit(1)


def _send_test() -> tuple[bool, str]:
    if alerts.send_test():
        return True, "A recipient accepted the test message."
    return False, "No recipient accepted the test message; the log has the reason."


def _check() -> tuple[bool, str]:
    result = alerts.check()
    return result is not alerts.CheckResult.UNDELIVERED, result.value
