"""Play scenario files on an SQLite database of their own: python -m tests.reconciliation FILE…

Print what differs; the exit code is 1 if anything does.
"""

import argparse
import importlib
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import django
from django.core.management import call_command
from django.db import connection, transaction

from tests.__main__ import temporary_files_in_memory


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.reconciliation", description=__doc__)
    parser.add_argument("files", nargs="+", metavar="FILE", type=Path)
    files = parser.parse_args(arguments).files
    scenarios = [scenario for path in files for scenario in json.loads(path.read_text())]
    with temporary_files_in_memory(), tempfile.TemporaryDirectory(prefix="prihod-") as folder:
        os.environ |= {
            "DATA_DIR": folder,
            "DATABASE_URL": "",
            "DEBUG": "1",
            "LOG_LEVEL": "ERROR",
        }
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
        django.setup()
        call_command("migrate", verbosity=0)
        differing = sum(differs(scenario) for scenario in scenarios)
        connection.close()
    print(f"{len(scenarios)} scenarios, {differing} differ")
    return int(differing > 0)


def differs(scenario: Any) -> bool:
    """Play the scenario, print what differs, and leave the database empty."""
    play = importlib.import_module("tests.reconciliation.scenarios").play  # its models need django.setup()
    with transaction.atomic():
        differences: list[str] = play(scenario)
        transaction.set_rollback(True)
    for difference in differences:
        print(f"{scenario['name']}: {difference}")
    return bool(differences)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
