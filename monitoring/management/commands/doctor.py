import sys
from typing import Any

from django.core.management.base import BaseCommand

from monitoring import doctor


class Command(BaseCommand):
    help = (
        "Check settings, secrets, broker, database, migrations, clocks, workers, scheduler, inbox and the "
        "last verification, and print a remedy for each problem. Changes nothing. Exit code: 0 no problems, "
        "1 problems found."
    )
    requires_system_checks = []  # it runs them itself, and continues after their findings

    def handle(self, *_: Any, **__: Any) -> None:
        found_problem = False
        for finding in doctor.examine():
            self.stdout.write(
                f"{'!!' if finding.remedy else 'ok'}  {finding.component:<10} {finding.message}"
            )
            if finding.remedy:
                found_problem = True
                self.stdout.write(f"    {'':<10} → {finding.remedy}")
        if found_problem:
            self.stdout.write("Problems found; see the lines marked !!.")
            sys.exit(1)
        self.stdout.write("No problems found.")
