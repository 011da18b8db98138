"""Play scenarios of versioned operations on a database of their own, through the endpoint and the worker.

    python -m tests.corrections tests/version_sequences.json

A file is a list of scenarios: `deliveries` of one operation in order of arrival, `lines_rubles` (the entries
that result, by payer) and `notes` (deliveries that post nothing). Print each difference, and exit with 1 if
there is one. The database is a test database of DATABASE_URL's server, removed afterwards.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import django
from django.test.utils import setup_databases, setup_test_environment, teardown_databases

if __name__ == "__main__":  # pytest has set Django up
    folder = tempfile.TemporaryDirectory(prefix="prihod-")  # of SQLite's file and the messages
    os.environ |= {"DJANGO_SETTINGS_MODULE": "config.settings", "DEBUG": "1", "WEBHOOK_AUTH": "none"}
    os.environ |= {"DATA_DIR": folder.name, "LOG_LEVEL": "CRITICAL"}
    django.setup()

from tests.version_scenarios import differences  # models load after django.setup() only


def main(arguments: Sequence[str]) -> int:
    """Play the files; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.corrections", description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    files: list[Path] = parser.parse_args(arguments).files
    setup_test_environment()
    databases = setup_databases(verbosity=0, interactive=False)
    try:
        return int(sum(map(report, files)) > 0)
    finally:
        teardown_databases(databases, verbosity=0)


def report(file: Path) -> bool:
    """Play a file and print what differs; return whether something does."""
    scenarios = json.loads(file.read_text())
    differing = 0
    for scenario in scenarios:
        found = differences(scenario)
        differing += bool(found)
        for each in found:
            sys.stdout.write(f"{file}: {scenario['name']}: {each}\n")
    sys.stdout.write(f"{file}: {len(scenarios) - differing} of {len(scenarios)} scenarios as expected\n")
    return bool(differing)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
