"""Startup errors are one line, and no process has been started."""

import fcntl
import os
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from runpy import run_path
from typing import Any
from unittest.mock import patch

import pytest
import structlog
from celery import Celery
from django.core.exceptions import ImproperlyConfigured
from django.db.utils import ConnectionHandler
from django.test import override_settings
from pytest_django import Settings

from config.env import check_authority
from core.delivery_auth import DeliveryAuth
from devtools import preflight, run
from devtools.run import example_commands
from tests.harness.servers import ROOT, free_port
from tests.harness.stack import clean_environment
from tests.markers import sqlite_run_only

pytestmark = sqlite_run_only

SECRETS = {
    "SECRET_KEY": "s3cret",
    "DATABASE_URL": "mysql://u:p@h/d",
    "REDIS_URL": "redis://h",
    "WEBHOOK_AUTH": "none",
    "DEBUG": "0",
}
READ = (
    "DATABASE",
    "DATA_DIR",
    "DEBUG",
    "HOST",
    "PORT",
    "REDIS_URL",
    "SECRET_KEY_FILE",
    "URL",
)  # by preflight
CLOSED = "127.0.0.1:1"  # nothing listens on port 1


def startup_error(data_dir: Path, **environment: str) -> str:
    """Take the launcher's steps before its processes start, in this process; return the message of the error.

    A test that gets as far as the database needs the mark django_db.
    """
    try:
        values = settings_of(clean_environment(PORT=str(free_port()), DATA_DIR=str(data_dir)) | environment)
        with configured(values), pytest.raises(preflight.StartupError) as error:
            take_steps()
    except ImproperlyConfigured as exc:
        return str(exc)
    return str(error.value)


def take_steps() -> None:
    preflight.prepare_data_dir()
    preflight.check_port()
    preflight.check_database()
    preflight.probe_broker()


def settings_of(environment: Mapping[str, str]) -> dict[str, Any]:
    """Evaluate config/settings.py; restore what it changes besides its own names."""
    logging = structlog.get_config()
    try:
        with patch.dict(os.environ, environment, clear=True), warnings.catch_warnings(action="ignore"):
            return run_path(str(ROOT / "config/settings.py"))
    finally:
        structlog.configure(**logging)


@contextmanager
def configured(values: Mapping[str, Any]) -> Iterator[None]:
    """Let preflight see these settings, their database and their broker."""
    database = ConnectionHandler({"default": values["DATABASE"]})["default"]
    broker = Celery(set_as_current=False)
    broker.config_from_object(
        {k: v for k, v in values.items() if k.startswith("CELERY_")}, namespace="CELERY"
    )
    with pytest.MonkeyPatch.context() as monkeypatch, override_settings(**{key: values[key] for key in READ}):
        monkeypatch.setattr(preflight, "connection", database)
        monkeypatch.setattr(preflight, "app", broker)
        yield
    database.close()


def launcher_error(data_dir: Path, **environment: str) -> str:
    """Run `make run` in an environment in which it must fail; return its message."""
    base = clean_environment(PORT=str(free_port()), DATA_DIR=str(data_dir))
    launcher = subprocess.run(
        [sys.executable, "-m", "devtools.run"],
        cwd=ROOT,
        env={**base, **environment},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert launcher.returncode == 1
    assert launcher.stdout == ""
    assert launcher.stderr.count("\n") == 1, launcher.stderr
    start, line = launcher.stderr.strip().split(": ", 1)
    assert start == "Prihod can't start"
    return line


def test_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        expected = f"port {port} of 127.0.0.1 is in use; choose another with PORT"
        assert startup_error(tmp_path, PORT=str(port)) == expected


@pytest.mark.process
def test_port_in_use_by_another_prihod(tmp_path: Path) -> None:
    class Prihod(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("X-Request-ID", "0123456789abcdef")
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Prihod) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        try:
            expected = (
                f"port {other.server_port} of 127.0.0.1 is in use by another Prihod; choose another with PORT"
            )
            assert launcher_error(tmp_path, PORT=str(other.server_port)) == expected
        finally:
            other.shutdown()


def test_locked_data_dir(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert startup_error(tmp_path) == f"DATA_DIR={tmp_path} is in use by another `make run`"


def test_host_of_another_machine(tmp_path: Path) -> None:
    assert startup_error(tmp_path, HOST="192.0.2.1").startswith("can't listen on HOST=192.0.2.1 PORT=")


def test_data_dir_under_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    data_dir = tmp_path / "file" / "data"
    assert startup_error(data_dir) == f"DATA_DIR={data_dir} can't be written: Not a directory"


@pytest.mark.parametrize("url", ["postgres://u@h/d", "mysql//u@h/d", "nonsense", "sqlite://:memory:"])
def test_database_url_with_another_scheme(tmp_path: Path, url: str) -> None:
    assert startup_error(tmp_path, DATABASE_URL=url) == "DATABASE_URL must begin with sqlite:/// or mysql://"


@pytest.mark.parametrize(
    "url",
    ["mysql://", "mysql://u:s3cret@h", "mysql://u@h:port/d", "mysql://u:s3/cret@h/d", "sqlite:///:memory:"],
)
def test_malformed_database_url(tmp_path: Path, url: str) -> None:
    message = startup_error(tmp_path, DATABASE_URL=url)
    assert message.startswith("DATABASE_URL is malformed")
    assert "s3" not in message


@pytest.mark.django_db
def test_unreachable_database_server(tmp_path: Path) -> None:
    pytest.importorskip("MySQLdb")
    message = startup_error(tmp_path, DATABASE_URL=f"mysql://u:s3cret@{CLOSED}/d")
    assert message.startswith("can't connect to the database of DATABASE_URL: Can't connect to")
    assert "s3cret" not in message


@pytest.mark.django_db
def test_unknown_database_option(tmp_path: Path) -> None:
    pytest.importorskip("MySQLdb")
    assert "'colour'" in startup_error(tmp_path, DATABASE_URL=f"mysql://u@{CLOSED}/d?colour=red")


@pytest.mark.django_db
def test_database_url_pointing_at_non_sqlite_file(tmp_path: Path) -> None:
    (tmp_path / "novel.txt").write_text("It was a dark and stormy night. " * 100)
    message = startup_error(tmp_path, DATABASE_URL=f"sqlite:///{tmp_path}/novel.txt")
    assert message == "can't connect to the database of DATABASE_URL: file is not a database"


@pytest.mark.process
def test_mysql_without_mysqlclient(tmp_path: Path) -> None:
    (tmp_path / "MySQLdb.py").write_text("raise ImportError('as where it is not installed')")
    message = launcher_error(tmp_path, DATABASE_URL="mysql://u@h/d", PYTHONPATH=str(tmp_path))
    assert "pip install -r requirements/mysql.txt" in message


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("url", "name"), [("redis://:s3cret@{}/0", "Redis"), ("amqp://user:s3cret@{}//", "RabbitMQ")]
)
def test_unreachable_broker(tmp_path: Path, url: str, name: str) -> None:
    message = startup_error(tmp_path, REDIS_URL=url.format(CLOSED))
    assert message.startswith(f"can't connect to the {name} of REDIS_URL: ")
    assert "s3cret" not in message


@pytest.mark.django_db
def test_redis_url_with_another_scheme(tmp_path: Path) -> None:
    message = startup_error(tmp_path, REDIS_URL="nonsense://:s3cret@h")
    assert message.startswith("REDIS_URL begins with none of redis://, ")
    assert "s3cret" not in message


@pytest.mark.parametrize("missing", ["SECRET_KEY", "DATABASE_URL", "REDIS_URL"])
def test_production_without_a_required_variable(tmp_path: Path, missing: str) -> None:
    message = startup_error(tmp_path, **{**SECRETS, missing: ""})
    assert message == f"{missing} is not set; with DEBUG=0 it must be. See .env.example."


def test_production_without_webhook_authentication(tmp_path: Path) -> None:
    message = startup_error(tmp_path, **{**SECRETS, "WEBHOOK_AUTH": ""})
    assert message.startswith("no webhook authentication is configured; with DEBUG=0 set WEBHOOK_SECRETS")


def test_webhook_auth_none_contradicts_credentials(tmp_path: Path) -> None:
    message = startup_error(tmp_path, WEBHOOK_AUTH="none", WEBHOOK_BEARER_TOKENS="0123456789abcdef")
    assert message == "WEBHOOK_AUTH=none contradicts the other WEBHOOK_ variables that are set"


@pytest.mark.parametrize(
    "name",
    [
        *("WEBHOOK_SECRETS", "WEBHOOK_X_SIGNATURE_SECRETS", "WEBHOOK_BASIC_AUTH", "WEBHOOK_BEARER_TOKENS"),
        *("WEBHOOK_NETWORKS", "WEBHOOK_PUBLIC_KEY_FILE"),
    ],
)
@pytest.mark.parametrize("value", ["s3cret", "s3cret,", ",", "$SECRET_KEY"])
def test_malformed_webhook_secret_is_named_and_not_quoted(tmp_path: Path, name: str, value: str) -> None:
    assert startup_error(tmp_path, **{name: value}) == f"{name} is malformed; see .env.example"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALERT_EMAILS", "ops@bank.example,"),
        ("ALERT_EMAILS", "ops"),
        ("ALERT_WEBHOOK_URL", "ftp://chat.example/s3cret"),
        ("ALERT_WEBHOOK_URL", "https:///s3cret"),
        ("ALERT_WEBHOOK_URL", "https://chat.example:port/s3cret"),
        ("ALERT_WEBHOOK_URL", "https://chat.example/s3 cret"),
        ("EMAIL_URL", "smtp://"),
        ("EMAIL_URL", "pigeon://user:s3cret@host"),
        ("EMAIL_URL", "smtp://user:s3cret@host:port"),
    ],
)
def test_malformed_alert_receiver_is_named_and_not_quoted(tmp_path: Path, name: str, value: str) -> None:
    assert startup_error(tmp_path, **{name: value}) == f"{name} is malformed; see .env.example"


@pytest.mark.parametrize(
    "password", ["m4rker/x", "m4rker?x", "m4rker#x", "12/m4rker", "12?m4rker", "12#m4rker"]
)
@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("DATABASE_URL", "mysql://user:{}@127.0.0.1:1/name"),
        ("REDIS_URL", "redis://:{}@127.0.0.1:1/0"),
        ("REDIS_URL", "redis://127.0.0.1:1/0;redis://:{}@127.0.0.1:2/0"),
        ("EMAIL_URL", "smtp://user:{}@127.0.0.1:1"),
    ],
)
def test_unencoded_url_password_is_rejected_and_not_quoted(name: str, url: str, password: str) -> None:
    with pytest.raises(
        ImproperlyConfigured, match=rf"^{name} is malformed; in a password write %2F for /"
    ) as exc:
        check_authority(name, url.format(password))
    assert "m4rker" not in str(exc.value)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("DATABASE_URL", "mysql://user:m4rker@127.0.0.1:1/name"),
        ("DATABASE_URL", "mysql://user:m4rker/x@127.0.0.1:1/name"),
        ("REDIS_URL", "redis://:m4rker@127.0.0.1:1/0"),
        ("REDIS_URL", "redis://:m4rker/x@127.0.0.1:1/0"),
        ("REDIS_URL", "redis://:m4r@ker@127.0.0.1:1/0"),
        ("REDIS_URL", "nonsense://:m4rker@127.0.0.1:1/0"),
        ("SENTRY_DSN", "https://m4rker@127.0.0.1/no-number"),
        ("ALERT_WEBHOOK_URL", "http://user:m4rker@127.0.0.1:port/x"),
    ],
)
def test_url_password_is_not_quoted(tmp_path: Path, name: str, url: str) -> None:
    assert "m4r" not in startup_error(tmp_path, **{name: url})


def test_alert_emails_require_a_mail_server(tmp_path: Path) -> None:
    message = startup_error(tmp_path, ALERT_EMAILS="ops@bank.example")
    assert message == "ALERT_EMAILS is set, but EMAIL_URL is not; see .env.example"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BANK_TIME_ZONE", "Mars/Olympus"),
        ("BANK_TIME_ZONE", "Europe"),
        ("LOG_LEVEL", "chatty"),
    ],
)
def test_malformed_setting(tmp_path: Path, name: str, value: str) -> None:
    assert startup_error(tmp_path, **{name: value}) == f"{name}={value} is malformed; see .env.example"


def test_worker_with_a_heartbeat_is_up_while_messages_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heartbeat = tmp_path / "heartbeat"
    monkeypatch.setattr("worker.heartbeats.heartbeat_path", lambda _: heartbeat)
    assert not run.worker_is_up(0)
    heartbeat.touch()
    started = heartbeat.stat().st_mtime
    assert not run.worker_is_up(started)  # of an earlier run
    os.utime(heartbeat, (started + 1, started + 1))
    assert run.worker_is_up(started)


@pytest.mark.process
def test_missing_metrics_directory_is_no_startup_error(tmp_path: Path) -> None:
    """The launcher creates metrics before the settings create the directory; the error is about PORT."""
    folder = str(tmp_path / "counts")
    assert launcher_error(tmp_path, PROMETHEUS_MULTIPROC_DIR=folder, PORT="0").startswith("PORT=0 is ")


@pytest.mark.parametrize(
    ("auth", "read_auth", "shown", "not_shown"),
    [
        (DeliveryAuth(), "none", "curl -H 'Content-Type", "Authorization"),
        (DeliveryAuth(bearer=[b"x"]), "none", "curl -H 'Authorization: Bearer <one of", "API key"),
        (DeliveryAuth(basic=[b"x"]), "none", "curl -u '<one of WEBHOOK_BASIC_AUTH>'", "API key"),
        (DeliveryAuth(secrets=[b"x"]), "none", "simulate_bank signs", "webhook/bank"),
        (
            DeliveryAuth(),
            "key",
            "curl -H 'Authorization: Bearer <that API key>' http://x/api/org",
            "curl http://x/api/org",
        ),
    ],
)
def test_example_commands_include_the_required_credentials(
    settings: Settings, auth: DeliveryAuth, read_auth: str, shown: str, not_shown: str
) -> None:
    settings.BANK_AUTH, settings.READ_AUTH = auth, read_auth

    commands = example_commands("http://x", "manage.py")

    assert shown in commands
    assert not_shown not in commands
