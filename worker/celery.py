"""The Celery application; `celery -A worker worker` and `celery -A worker beat` start from here."""

import os
import signal
import sys

import django
from billiard import current_process
from celery import Celery, Task
from celery.signals import import_modules, setup_logging, task_postrun, task_prerun, worker_process_init
from django.conf import settings
from django.db import close_old_connections
from structlog.contextvars import bind_contextvars, clear_contextvars

from core.cli import exit_on_misconfiguration

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
with exit_on_misconfiguration():
    settings.DEBUG  # noqa: B018 loads them, before Celery looks at its command line


@import_modules.connect
def set_up_django(**_: object) -> None:
    """Set up Django ahead of Celery's own receiver, so that a misconfiguration exits with one line."""
    with exit_on_misconfiguration():
        django.setup()


app = Celery("prihod")
# Its Django fixup puts the working directory first, where a folder named as a package of ours would hide it.
sys.path.append(sys.path.pop(0))
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["worker", "monitoring"])
# Celery would close the database's connection around every task; a new one costs more than a small task.
app.conf.CELERY_DB_REUSE_MAX = sys.maxsize
app.steps["consumer"].add("worker.heartbeats:HeartbeatStep")  # by name: it needs Django's models


@setup_logging.connect
def keep_django_logging(**_: object) -> None:
    """A receiver of this signal keeps Celery from replacing Django's LOGGING."""


@task_prerun.connect
def close_stale_connections(**_: object) -> None:
    """As before a request: those that broke are closed, and the others asked whether they still work."""
    close_old_connections()


@task_prerun.connect
def bind_log_context(task_id: str, task: Task[..., object], **_: object) -> None:
    """A ring carries no data: it is by operation ids that a worker's lines are joined with the web's."""
    clear_contextvars()
    bind_contextvars(task_id=task_id, task=task.name)


@task_postrun.connect
def clear_log_context(**_: object) -> None:
    clear_contextvars()


@worker_process_init.connect
def ignore_sigterm_in_pool(**_: object) -> None:
    """Process managers signal the whole group; a pool process would die with its batch half done.

    The main process hears the same signal, lets every batch finish and then ends its pool.
    """
    if current_process().name != "MainProcess":  # which the solo pool runs in
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
