"""Whether the worker or the scheduler of this machine gives signs of life."""

import sys
import time
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from worker.marks import heartbeat_path
from worker.models import Heartbeat


class Command(BaseCommand):
    help = (
        "Say how old the last beat of this machine's worker or scheduler is, by the mark it leaves itself, "
        "which is named after PORT. "
        "Asks neither database nor broker. Exit code: 0 young enough, 1 too old, or none."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("kind", choices=Heartbeat.Kind.values)
        parser.add_argument("--max-age", type=float, default=60.0, help="in seconds; 60 unless given")

    def handle(self, *_: Any, **options: Any) -> None:
        kind, seconds_max = options["kind"], options["max_age"]
        try:
            age = time.time() - heartbeat_path(kind).stat().st_mtime
        except FileNotFoundError:
            self.stdout.write(
                f"{kind}: no beat on this machine for PORT={settings.PORT} ({heartbeat_path(kind)})"
            )
            sys.exit(1)
        alive = age <= seconds_max
        self.stdout.write(f"{kind}: {'alive' if alive else 'silent'}, last beat {age:.0f} s ago")
        if not alive:
            sys.exit(1)
