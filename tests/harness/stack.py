"""The system under test: what all kinds of stacks share, above all the environment of their processes."""

import http.client
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from uuid import uuid4

from tests.harness.processes import find_pids
from tests.harness.servers import ROOT, free_port

MANAGE_SECONDS_MAX = 100.0
# Every variable that the settings read; tests/test_architecture.py compares the file with them.
SETTINGS = re.findall(r"^#? ?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
# Empty counts as unset, and takes precedence over a developer's .env. prometheus_client only checks whether
# its variable exists, so that one is removed instead.
METRICS_DIR = "PROMETHEUS_MULTIPROC_DIR"
BLANK_SETTINGS = dict.fromkeys(sorted(set(SETTINGS) - {METRICS_DIR}), "")
# The libraries read more variables of these families, such as OTEL_EXPORTER_OTLP_HEADERS or SENTRY_RELEASE.
REMOVED = re.compile(rf"{METRICS_DIR}|(ALERT|EMAIL|OTEL|SENTRY)_.*")


def clean_environment(**settings: str) -> dict[str, str]:
    """Return this process's environment with these settings of Prihod and no others.

    Nothing that a developer has set in the shell or in .env reaches a stack, so that it notifies no person,
    reports to no Sentry or collector, and uses no other database.
    """
    inherited = {name: value for name, value in os.environ.items() if not REMOVED.fullmatch(name)}
    return {**inherited, **BLANK_SETTINGS, **settings}


class Stack:
    """Real processes on one free port, identified, orphans included, by a mark in their environment."""

    def __init__(self, folder: Path, data_dir: Path, root: Path = ROOT) -> None:
        self.root = root
        self.manage_seconds_max = MANAGE_SECONDS_MAX
        self.folder = folder
        self.data_dir = data_dir
        self.port = free_port()
        self.mark = f"stack-{uuid4()}"
        self.environment = self.environment_with({})

    def environment_with(self, settings: Mapping[str, str]) -> dict[str, str]:
        """Return the clean environment of this stack's processes with these settings."""
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        own = {"PATH": path, "PORT": str(self.port), "DATA_DIR": str(self.data_dir), "STACK_MARK": self.mark}
        return clean_environment(**{**own, **settings})

    def pids(self, command: str = "") -> list[int]:
        """Return all processes, oldest first, or those whose command line contains `command`."""
        return find_pids(environment=self.mark, command=command)

    def is_ready(self, port: int | None = None) -> bool:
        """Return whether web serves requests, on `port` if there are several, and reaches its database."""
        with closing(http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=2)) as connection:
            try:
                connection.request("GET", "/readyz")
                return connection.getresponse().status == 200
            except (OSError, http.client.HTTPException):
                return False

    def manage(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run manage.py on the stack's data, whether the stack runs or not."""
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=self.root,
            env={**self.environment, **environment},
            check=False,
            capture_output=True,
            text=True,
            timeout=self.manage_seconds_max,
        )
