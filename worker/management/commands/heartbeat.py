"""Check the heartbeat of this machine's worker or scheduler."""

import sys
import time
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from worker.heartbeats import heartbeat_path
from worker.models import Heartbeat


class Command(BaseCommand):
    help = (
        "Print the age of the last heartbeat of this machine's worker or scheduler, from the heartbeat file, "
        "whose name contains PORT. Uses neither database nor broker. "
        "Exit code: 0 up, 1 stale or no heartbeat."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("kind", choices=Heartbeat.Kind.values)
        parser.add_argument("--max-age", type=float, default=60.0, help="in seconds; default 60")

    def handle(self, *_: Any, **options: Any) -> None:
        kind, seconds_max = options["kind"], options["max_age"]
        path = heartbeat_path(kind)
        try:
            age = time.time() - path.stat().st_mtime
        except FileNotFoundError:
            self.stdout.write(f"{kind}: no heartbeat on this machine for PORT={settings.PORT} ({path})")
            sys.exit(1)
        is_up = age <= seconds_max
        self.stdout.write(f"{kind}: {'up' if is_up else 'stale'}, last heartbeat {age:.0f} s ago")
        if not is_up:
            sys.exit(1)
