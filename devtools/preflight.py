"""The steps before the processes start. Each failure is one line, and leaves nothing half done."""

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
from core.observability.redaction import redact_urls
from devtools.supervisor import echo
from ingest import doorbell
from web.request_id import HEADER
from worker.celery import app

ADMIN_USERNAME = "admin"
NO_MYSQLCLIENT = (
    "DATABASE_URL requires mysqlclient, which is not installed: pip install -r requirements/mysql.txt "
    "(built from source; on Debian: apt-get install default-libmysqlclient-dev pkg-config gcc python3-dev)"
)
ER_BAD_DB_ERROR = 1049  # MySQL: unknown database


class StartupError(Exception):
    """The message is for the person at the console."""


def load_settings() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    try:
        django.setup()
    except ImproperlyConfigured as exc:
        raise StartupError(_explained(exc)) from exc


def _explained(exc: ImproperlyConfigured) -> str:
    return NO_MYSQLCLIENT if "MySQLdb" in str(exc) else str(exc)


def check_port() -> None:
    host, port = settings.HOST, settings.PORT
    family = listen_address.family(host)
    is_dual = family is socket.AF_INET6 and socket.has_dualstack_ipv6()  # the socket that gunicorn opens
    try:
        socket.create_server((host, port), family=family, dualstack_ipv6=is_dual).close()
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            by = " by another Prihod" if _prihod_listens() else ""
            raise StartupError(f"port {port} of {host} is in use{by}; choose another with PORT") from exc
        raise StartupError(f"can't listen on HOST={host} PORT={port}: {exc.strerror}") from exc


def _prihod_listens() -> bool:
    try:
        with urllib.request.urlopen(f"{settings.URL}/healthz", timeout=1) as response:  # noqa: S310 our own URL
            return bool(response.headers.get(HEADER))
    except (OSError, http.client.HTTPException):
        return False


def prepare_data_dir() -> None:
    """Create DATA_DIR, lock it until this process ends, and create the shared development secret."""
    try:
        settings.DATA_DIR.mkdir(parents=True, exist_ok=True)
        _lock(settings.DATA_DIR / "lock")
        with tempfile.TemporaryFile(dir=settings.DATA_DIR):
            pass
        if settings.DEBUG and not settings.SECRET_KEY_FILE.exists():
            incomplete = settings.SECRET_KEY_FILE.with_suffix(".part")
            incomplete.touch(mode=0o600)
            incomplete.write_text(secrets.token_urlsafe(48))
            incomplete.rename(settings.SECRET_KEY_FILE)
    except OSError as exc:
        raise StartupError(f"DATA_DIR={settings.DATA_DIR} can't be written: {exc.strerror}") from exc


def _lock(file: Path) -> None:
    """Lock `file`; the kernel releases it when the process ends, even by SIGKILL. Raise StartupError."""
    lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)  # stays open; no child inherits it
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise StartupError(f"DATA_DIR={file.parent} is in use by another `make run`") from None


def check_database() -> None:
    try:
        connection.ensure_connection()
    except ImproperlyConfigured as exc:
        raise StartupError(_explained(exc)) from exc
    except (DatabaseError, InterfaceError, TypeError) as exc:  # TypeError: an unknown ?option
        advice = ""
        if exc.args[0] == ER_BAD_DB_ERROR:
            advice = f"; create it: CREATE DATABASE {settings.DATABASE['NAME']} CHARACTER SET utf8mb4"
        message = redact_urls(str(exc.args[-1]))
        raise StartupError(f"can't connect to the database of DATABASE_URL: {message}{advice}") from exc


def probe_broker() -> None:
    """Publish a message. Its publication proves a working broker, its consumption a working worker."""
    try:
        with doorbell.broker_connection(app) as broker:
            doorbell.publish(app, broker)
    except Exception as exc:
        name = f"{broker_name()} of REDIS_URL" if settings.REDIS_URL else "file broker"
        raise StartupError(f"can't connect to the {name}: {redact_urls(str(exc))}") from exc


def broker_name() -> str:
    return "RabbitMQ" if "amqp" in settings.REDIS_URL.partition(":")[0] else "Redis"


def run_system_checks() -> None:
    messages = run_checks(databases=["default"])
    texts = [f"{message.msg}{f' ({message.hint})' if message.hint else ''}" for message in messages]
    if any(message.is_serious() for message in messages):
        raise StartupError("\n  ".join(texts))
    for text in texts:
        echo(f"warning: {text}")


def migrate() -> None:
    """Apply the missing migrations. Raise StartupError if the database has some that this version lacks."""
    executor = MigrationExecutor(connection)
    loader = executor.loader
    unknown = [
        f"{app}.{name}"
        for app, name in loader.applied_migrations
        if app in loader.migrated_apps and (app, name) not in loader.disk_migrations
    ]
    if unknown:
        raise StartupError(
            f"the database is of another version: it has the migration {min(unknown)}; run that version, or "
            "start with another DATA_DIR or DATABASE_URL"
        )
    missing = len(executor.migration_plan(loader.graph.leaf_nodes()))
    try:
        call_command("migrate", verbosity=0, interactive=False)
    except (CommandError, DatabaseError) as exc:
        raise StartupError(f"the database could not be migrated: {exc}") from exc
    echo(f"Database: {missing} migrations applied" if missing else "Database: up to date")


def create_admin() -> str | None:
    """Create the superuser ADMIN_USERNAME unless there is a superuser; return the new password."""
    users = get_user_model().objects
    if users.filter(Q(is_superuser=True) | Q(username=ADMIN_USERNAME)).exists():
        return None
    password = secrets.token_urlsafe(12)
    users.create_superuser(ADMIN_USERNAME, password=password)
    echo(f"Created the user {ADMIN_USERNAME} with password {password}")
    return password
