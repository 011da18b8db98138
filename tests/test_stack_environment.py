"""No setting of a developer's shell or .env reaches a stack under test, so that it notifies no person."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.harness.launcher_stack import LauncherStack
from tests.harness.procfile_stack import ProcfileStack
from tests.harness.stack import SETTINGS, clean_environment
from tests.markers import sqlite_run_only

pytestmark = [sqlite_run_only, pytest.mark.process]
OF_LIBRARIES = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_TRACES_EXPORTER", "SENTRY_RELEASE", "EMAIL_BACKEND")
PRINT_ENVIRONMENT = "import json, os; print(json.dumps(dict(os.environ)))"
PRINT_SETTINGS = """
from django.conf import settings as s
print([s.ALERT_EMAILS, s.ALERT_WEBHOOK_URL, str(s.SENTRY_DSN), s.TRACING_ENABLED, s.EMAIL_HOST])
"""


@pytest.fixture
def developer_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*SETTINGS, *OF_LIBRARIES):
        monkeypatch.setenv(name, "developer@example.com")


def leaked_to_child(environment: Mapping[str, str]) -> set[str]:
    child = subprocess.check_output([sys.executable, "-c", PRINT_ENVIRONMENT], env=environment, text=True)
    return {name for name, value in json.loads(child).items() if "developer@" in value}


def test_settings_that_notify_or_report_are_among_the_blanked_ones() -> None:
    assert {"ALERT_EMAILS", "ALERT_WEBHOOK_URL", "EMAIL_URL", "SENTRY_DSN"} <= set(SETTINGS)
    assert {"OTEL_EXPORTER_OTLP_ENDPOINT", "DATABASE_URL", "REDIS_URL", "SECRET_KEY"} <= set(SETTINGS)


@pytest.mark.usefixtures("developer_settings")
def test_launcher_stack_has_no_developer_setting(tmp_path: Path) -> None:
    stack = LauncherStack(tmp_path)

    assert leaked_to_child(stack.environment) == set()
    assert stack.manage("shell", "-v0", "-c", PRINT_SETTINGS).stdout == "[[], [], '', False, 'localhost']\n"


@pytest.mark.usefixtures("developer_settings")
def test_procfile_stack_has_no_developer_setting() -> None:
    with ProcfileStack(embedded=True, workers=1, started=[]) as stack:
        assert {name: leaked_to_child(each.environment) for name, each in stack.programs.items()} == {
            "worker1": set(),
            "web": set(),
            "beat": set(),
        }
        assert stack.manage("shell", "-v0", "-c", PRINT_SETTINGS).stdout.startswith("[[], [], '', False")


@pytest.mark.usefixtures("developer_settings")
def test_settings_of_a_stack_override_the_blank_ones() -> None:
    assert clean_environment(ALERT_EMAILS="test@example.com")["ALERT_EMAILS"] == "test@example.com"
