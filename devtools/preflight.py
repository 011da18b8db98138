"""What happens before the processes start: every complaint is one line, and nothing is left half done."""

import errno
import fcntl
import http.client
import os
import secrets
import socket
import tempfile
import urllib.request
from pathlib import Path

import django
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import DatabaseError, InterfaceError, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Q

from core import listen_address
from core.observability.url_credentials import redact_urls
from devtools.supervisor import echo
from ingest import doorbell
from web.request_id import HEADER
from worker.celery import app

ADMIN_USERNAME = "admin"
NO_MYSQLCLIENT = (
    "DATABASE_URL asks for MySQL, and mysqlclient is not installed: pip install -r requirements/mysql.txt "
    "(built from source; on Debian: apt-get install default-libmysqlclient-dev pkg-config gcc python3-dev)"
)
UNKNOWN_DATABASE = 1049  # MySQL's error number


class StartupError(Exception):
    """The reason, in words for the person at the console."""


def load_settings() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    try:
        django.setup()
    except ImproperlyConfigured as wrong:
        raise StartupError(_misconfigured(wrong)) from wrong


def _misconfigured(wrong: ImproperlyConfigured) -> str:
    return NO_MYSQLCLIENT if "MySQLdb" in str(wrong) else str(wrong)


def check_port() -> None:
    host, port = settings.HOST, settings.PORT
    family = listen_address.family(host)
    is_dual = family is socket.AF_INET6 and socket.has_dualstack_ipv6()  # as what gunicorn opens
    try:
        socket.create_server((host, port), family=family, dualstack_ipv6=is_dual).close()
    except OSError as fault:
        if fault.errno == errno.EADDRINUSE:
            by = " by another Prihod" if _prihod_answers() else ""
            raise StartupError(f"port {port} of {host} is in use{by}; choose another with PORT") from fault
        raise StartupError(f"HOST={host} PORT={port} can't be listened on: {fault.strerror}") from fault


def _prihod_answers() -> bool:
    try:
        with urllib.request.urlopen(f"{settings.URL}/healthz", timeout=1) as answered:  # noqa: S310 our own
            return bool(answered.headers.get(HEADER))
    except (OSError, http.client.HTTPException):
        return False


def prepare_data_dir() -> None:
    """Create DATA_DIR, lock it until this process ends, and create development's shared secret."""
    try:
        settings.DATA_DIR.mkdir(parents=True, exist_ok=True)
        _lock(settings.DATA_DIR / "lock")
        with tempfile.TemporaryFile(dir=settings.DATA_DIR):
            pass
        if settings.DEBUG and not settings.SECRET_KEY_FILE.exists():
            half_written = settings.SECRET_KEY_FILE.with_suffix(".part")
            half_written.touch(mode=0o600)
            half_written.write_text(secrets.token_urlsafe(48))
            half_written.rename(settings.SECRET_KEY_FILE)
    except OSError as fault:
        raise StartupError(f"DATA_DIR={settings.DATA_DIR} can't be written: {fault.strerror}") from fault


def _lock(file: Path) -> None:
    """The kernel unlocks it when the process ends, however it ends. Raises CannotStart."""
    lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)  # stays open; no child inherits it
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise StartupError(f"DATA_DIR={file.parent} is in use by another `make run`") from None


def check_database() -> None:
    try:
        connection.ensure_connection()
    except ImproperlyConfigured as wrong:
        raise StartupError(_misconfigured(wrong)) from wrong
    except (DatabaseError, InterfaceError, TypeError) as fault:  # TypeError: an unknown ?option
        advice = ""
        if fault.args[0] == UNKNOWN_DATABASE:
            advice = f"; create it: CREATE DATABASE {settings.DATABASE['NAME']} CHARACTER SET utf8mb4"
        said = redact_urls(str(fault.args[-1]))
        raise StartupError(f"DATABASE_URL leads to no usable database: {said}{advice}") from fault


def probe_broker() -> None:
    """Leave a ring in the broker. That it can be sent shows a broker, that it is taken a worker."""
    try:
        with app.connection_for_write(transport_options=doorbell.BROKER_OPTIONS) as broker:
            doorbell.publish(app, broker)
    except Exception as fault:
        name = "REDIS_URL leads to no usable Redis" if settings.REDIS_URL else "the file broker can't be used"
        raise StartupError(f"{name}: {redact_urls(str(fault))}") from fault


def run_system_checks() -> None:
    messages = run_checks(databases=["default"])
    told = [f"{message.msg}{f' ({message.hint})' if message.hint else ''}" for message in messages]
    if any(message.is_serious() for message in messages):
        raise StartupError("\n  ".join(told))
    for text in told:
        echo(f"warning: {text}")


def migrate() -> None:
    executor = MigrationExecutor(connection)
    missing = len(executor.migration_plan(executor.loader.graph.leaf_nodes()))
    try:
        call_command("migrate", verbosity=0, interactive=False)
    except (CommandError, DatabaseError) as fault:
        raise StartupError(f"the database could not be migrated: {fault}") from fault
    echo(f"Database: {missing} migrations applied" if missing else "Database: up to date")


def create_admin() -> str | None:
    """Create the user ADMIN, who may do everything, unless there is such a user; returns its password."""
    users = get_user_model().objects
    if users.filter(Q(is_superuser=True) | Q(username=ADMIN_USERNAME)).exists():
        return None
    password = secrets.token_urlsafe(12)
    users.create_superuser(ADMIN_USERNAME, password=password)
    echo(f"Created the user {ADMIN_USERNAME} with password {password}")
    return password
