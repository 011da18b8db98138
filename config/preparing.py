"""What happens before the processes start: every complaint is one line, and nothing is left half done."""

import errno
import os
import secrets
import socket
import tempfile

import django
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import DatabaseError, InterfaceError, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Q

from config.supervising import say
from ingest import doorbell
from worker.celery import app

ADMIN = "admin"
NO_MYSQLCLIENT = (
    "DATABASE_URL asks for MySQL, and mysqlclient is not installed: pip install -r requirements/mysql.txt "
    "(built from source; on Debian: apt-get install default-libmysqlclient-dev pkg-config gcc python3-dev)"
)
UNKNOWN_DATABASE = 1049  # MySQL's error number


class CannotStart(Exception):
    """The reason, in words for the person at the console."""


def load_settings() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    try:
        django.setup()
    except ImproperlyConfigured as wrong:
        raise CannotStart(_misconfigured(wrong)) from wrong


def _misconfigured(wrong: ImproperlyConfigured) -> str:
    return NO_MYSQLCLIENT if "MySQLdb" in str(wrong) else str(wrong)


def check_port() -> None:
    host, port = settings.HOST, settings.PORT
    if not 0 < port < 2**16:
        raise CannotStart(f"PORT={port} is not a port; choose one from 1 to 65535")
    try:
        socket.create_server((host, port)).close()
    except OSError as fault:
        if fault.errno == errno.EADDRINUSE:
            raise CannotStart(f"port {port} of {host} is in use; choose another with PORT") from fault
        raise CannotStart(f"HOST={host} PORT={port} can't be listened on: {fault.strerror}") from fault


def prepare_data_dir() -> None:
    """Create DATA_DIR and, in development, the secret that all processes share."""
    try:
        settings.DATA_DIR.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=settings.DATA_DIR):
            pass
        if settings.DEBUG and not settings.SECRET_KEY_FILE.exists():
            half_written = settings.SECRET_KEY_FILE.with_suffix(".part")
            half_written.touch(mode=0o600)
            half_written.write_text(secrets.token_urlsafe(48))
            half_written.rename(settings.SECRET_KEY_FILE)
    except OSError as fault:
        raise CannotStart(f"DATA_DIR={settings.DATA_DIR} can't be written: {fault.strerror}") from fault


def check_database() -> None:
    try:
        connection.ensure_connection()
    except ImproperlyConfigured as wrong:
        raise CannotStart(_misconfigured(wrong)) from wrong
    except (DatabaseError, InterfaceError, TypeError) as fault:  # TypeError: an unknown ?option
        advice = ""
        if fault.args[0] == UNKNOWN_DATABASE:
            advice = f"; create it: CREATE DATABASE {settings.DATABASE['NAME']} CHARACTER SET utf8mb4"
        raise CannotStart(f"DATABASE_URL leads to no usable database: {fault.args[-1]}{advice}") from fault


def ring_first() -> None:
    """Leave a ring in the broker. That it can be sent shows a broker, that it is taken a worker."""
    try:
        with app.connection_for_write(transport_options=doorbell.BROKER_OPTIONS) as broker:
            doorbell.send(app, broker)
    except Exception as fault:
        name = "REDIS_URL leads to no usable Redis" if settings.REDIS_URL else "the file broker can't be used"
        raise CannotStart(f"{name}: {fault}") from fault


def check_assumptions() -> None:
    messages = run_checks(databases=["default"])
    told = [f"{message.msg}{f' ({message.hint})' if message.hint else ''}" for message in messages]
    if any(message.is_serious() for message in messages):
        raise CannotStart("\n  ".join(told))
    for text in told:
        say(f"warning: {text}")


def migrate() -> None:
    executor = MigrationExecutor(connection)
    missing = len(executor.migration_plan(executor.loader.graph.leaf_nodes()))
    try:
        call_command("migrate", verbosity=0, interactive=False)
    except (CommandError, DatabaseError) as fault:
        raise CannotStart(f"the database could not be migrated: {fault}") from fault
    say(f"Database: {missing} migrations applied" if missing else "Database: up to date")


def create_admin() -> str | None:
    """Create the user ADMIN, who may do everything, unless there is such a user; returns its password."""
    users = get_user_model().objects
    if users.filter(Q(is_superuser=True) | Q(username=ADMIN)).exists():
        return None
    password = secrets.token_urlsafe(12)
    users.create_superuser(ADMIN, password=password)
    say(f"Created the user {ADMIN} with password {password}")
    return password
