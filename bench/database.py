"""Django and Celery in this process, with production's settings, connected to the servers of a stack.

Has to be imported before anything that has models; in the sorted imports of the measures it is.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import django
from celery import current_app
from django.conf import settings
from django.db import connection

from bench.systems import DATABASE_SETTINGS, InvalidRun
from tests.harness.procfile_stack import SHORT_TIMES, ProcfileStack
from tests.harness.stack import clean_environment

PRODUCTION = {
    "DJANGO_SETTINGS_MODULE": "config.settings",
    # Placeholders: `connected_to` sets the servers.
    "DATABASE_URL": "mysql://root@localhost/prihod?unix_socket=/nowhere",
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "SECRET_KEY": "only-for-the-benchmark-" * 3,
    "DEBUG": "0",
    "WEBHOOK_AUTH": "none",
    "READ_AUTH": "none",
}
if not settings.configured:
    environment = clean_environment(**PRODUCTION)
    os.environ.clear()
    os.environ |= environment
    django.setup()
    # Logging costs as much here as in a worker, but its output is not for this terminal.
    console: Any = logging.getLogger().handlers[0]
    console.setStream(Path(os.devnull).open("w"))  # noqa: SIM115 until this process ends

from ingest.reconciliation import reconcile  # noqa: E402 it has models
from ledger.verification import Drift, verify  # noqa: E402 likewise


@contextmanager
def connected_to(stack: ProcfileStack) -> Iterator[None]:
    """Connect this process to the stack's MariaDB and Redis within the block."""
    server = connection.settings_dict  # shared by the sessions of all threads
    options, broker = server["OPTIONS"], current_app.conf.broker_url
    connection.close()
    server["OPTIONS"] = {**options, "unix_socket": str(stack.mariadb.socket_path)}
    current_app.conf.update(broker_url=stack.broker.url)
    try:
        yield
    finally:
        connection.close()
        server["OPTIONS"] = options
        current_app.conf.update(broker_url=broker)


@contextmanager
def worker_stack(workers: int = 1, environment: Mapping[str, str] | None = None) -> Iterator[ProcfileStack]:
    """Start only the servers of a stack and connect Django to them. Each worker will have one process."""
    own = {**dict.fromkeys(SHORT_TIMES, ""), "WORKER_PROCESSES": "1", **(environment or {})}
    stack = ProcfileStack(workers=workers, database_settings=DATABASE_SETTINGS, environment=own, started=[])
    with stack, connected_to(stack):
        yield stack


def require_consistent_ledger() -> None:
    """Do what verify_ledger does, in this process and both halves in parallel. Raise InvalidRun on drift."""
    with ThreadPoolExecutor() as pool:
        for drift in pool.map(_first_drift, (verify, reconcile)):
            if drift:
                raise InvalidRun(f"verify_ledger: {drift}")


def _first_drift(verify_half: Callable[[], Iterator[Drift]]) -> Drift | None:
    """Run in a thread with a database session of its own."""
    try:
        return next(verify_half(), None)
    finally:
        connection.close()
