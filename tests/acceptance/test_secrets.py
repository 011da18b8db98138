"""No process prints a secret of its environment, neither in a failure nor on an error page."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.servers import ROOT, free_port
from tests.harness.stack import clean_environment
from tests.markers import sqlite_run_only

pytestmark = [sqlite_run_only, pytest.mark.process]

SECRETS = {
    "SECRET_KEY": "secretkeyCANARY" * 4,
    "DATABASE_URL": "mysql://prihod:databaseCANARY@127.0.0.1:1/prihod",
    "READ_DATABASE_URL": "mysql://prihod:readsCANARY@127.0.0.1:1/prihod",
    "REDIS_URL": "redis://:brokerCANARY@127.0.0.1:1/0",
    "WEBHOOK_X_SIGNATURE_SECRETS": "signatureCANARY" * 2,
    "WEBHOOK_BEARER_TOKENS": "bearerCANARY" * 2,
    "METRICS_TOKEN": "metricsCANARY",
    "SENTRY_DSN": "http://sentryCANARY@127.0.0.1:1/1",
}
BROKEN = {
    "database": {"DATABASE_URL": "mysql://prihod:databaseCANARY@127.0.0.1:notaport/prihod"},
    "scheme": {"DATABASE_URL": "postgres://prihod:databaseCANARY@127.0.0.1/prihod"},
    "reads": {"READ_DATABASE_URL": "mysql://prihod:readsCANARY@127.0.0.1:notaport/prihod"},
    "broker": {"REDIS_URL": "redis://:brokerCANARY@127.0.0.1:notaport/0"},
    "servers away": {},
}
LOADING_SETTINGS = [
    ["manage.py", "check", "--deploy"],
    ["-m", "devtools.run"],
    ["-m", "celery", "-A", "worker", "report"],
]
CONNECTING = [
    ["manage.py", "migrate"],
    ["manage.py", "verify_ledger"],
    ["-m", "celery", "-A", "worker", "inspect", "ping", "--timeout", "1"],
]


@pytest.mark.parametrize("broken", sorted(BROKEN))
def test_failing_commands_print_no_secret(broken: str, tmp_path: Path) -> None:
    environment = clean_environment(DEBUG="0", DATA_DIR=str(tmp_path), **SECRETS)
    environment |= {"PORT": str(free_port()), **BROKEN[broken]}
    for command in [*LOADING_SETTINGS, *([] if BROKEN[broken] else CONNECTING)]:
        output = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        ).stdout
        assert output
        assert "CANARY" not in output, (command, output)


ERROR_PAGE = """
import django; django.setup()
from django.conf import settings
from django.test import RequestFactory
from django.views.debug import technical_500_response
import sys
settings.DATABASE
try:
    raise ValueError("wrong")
except ValueError:
    print(technical_500_response(RequestFactory().get("/"), *sys.exc_info()).content.decode())
"""


def test_debug_error_page_shows_no_secret(tmp_path: Path) -> None:
    pytest.importorskip("MySQLdb", reason="mysqlclient is not installed")
    environment = clean_environment(DJANGO_SETTINGS_MODULE="config.settings", **SECRETS)
    environment |= {"DATA_DIR": str(tmp_path), "DEBUG": "1"}
    page = subprocess.run(
        [sys.executable, "-c", ERROR_PAGE],
        cwd=ROOT,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert "SECRET_KEY" in page
    lines = [line for line in page.splitlines() if "CANARY" in line]
    assert lines == []
