"""Django in the benchmark's own process."""

import os
import subprocess
import sys

import pytest

from tests.harness.servers import ROOT

PROGRAM = """
import bench.database
from django.conf import settings
print(settings.ALERT_EMAILS, settings.ALERT_WEBHOOK_URL, settings.SENTRY_DSN == "", settings.DEBUG)
"""
DEVELOPERS = {
    "ALERT_EMAILS": "developer@example.com",
    "ALERT_WEBHOOK_URL": "https://example.com/alerts",
    "EMAIL_URL": "smtp://mail.example.com:25",
    "SENTRY_DSN": "https://key@sentry.example.com/1",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.example.com:4318",
}


@pytest.mark.process
def test_developer_settings_do_not_reach_the_benchmark() -> None:
    pytest.importorskip("MySQLdb")
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env={**os.environ, **DEVELOPERS},
        check=True,
        capture_output=True,
        text=True,
    )

    assert run.stdout.split() == ["[]", "[]", "True", "False"]
