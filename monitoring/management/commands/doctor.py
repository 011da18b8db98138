"""Examine this installation, and say what to do."""

import sys
from typing import Any

from django.core.management.base import BaseCommand

from monitoring import doctor


class Command(BaseCommand):
    help = (
        "Examine settings, secrets, broker, database, migrations, clocks, workers, scheduler, inbox and "
        "the last verification, and print what to do. Changes nothing. Exit code: 0 all is well, 1 "
        "something is to be done."
    )
    requires_system_checks = []  # it runs them itself, and goes on behind what they find

    def handle(self, *_: Any, **__: Any) -> None:
        is_well = True
        for finding in doctor.examine():
            self.stdout.write(f"{'!!' if finding.remedy else 'ok'}  {finding.part:<10} {finding.found}")
            if finding.remedy:
                is_well = False
                self.stdout.write(f"    {'':<10} → {finding.remedy}")
        self.stdout.write("All is well." if is_well else "Something is to be done: see the lines with !!.")
        if not is_well:
            sys.exit(1)
