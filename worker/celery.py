"""The Celery application, for `celery -A worker worker` and `celery -A worker beat`."""

import os
import signal
import sys

import django
from billiard import current_process
from celery import Celery, Task
from celery.signals import import_modules, setup_logging, task_postrun, task_prerun, worker_process_init
from django.conf import settings
from django.db import close_old_connections
from kombu.transport import TRANSPORT_ALIASES
from structlog.contextvars import bind_contextvars, clear_contextvars

from core.cli import exit_on_misconfiguration
from worker import beat_shutdown

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
with exit_on_misconfiguration():
    settings.DEBUG  # noqa: B018 loads the settings before Celery parses its command line


@import_modules.connect
def set_up_django(**_: object) -> None:
    """Set up Django ahead of Celery's own receiver, so that a misconfiguration exits with one line."""
    with exit_on_misconfiguration():
        django.setup()


# Kombu finds the transport by the URL's scheme, also when it turns to the next server of a list. By name, so
# that nothing imports Redis without need.
TRANSPORT_ALIASES.update(
    redis="worker.redis_transport:Transport",
    rediss="worker.redis_transport:Transport",
    sentinel="worker.redis_transport:SentinelTransport",
    amqp="worker.amqp_transport:Transport",
    pyamqp="worker.amqp_transport:Transport",
    amqps="worker.amqp_transport:SSLTransport",
)
app = Celery("prihod")
# Celery's Django fixup puts the working directory first, where a folder could shadow a package of ours.
sys.path.append(sys.path.pop(0))
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["worker", "monitoring", "statements"])
# Celery would close the database connection around every task; a new one costs more than a small task.
app.conf.CELERY_DB_REUSE_MAX = sys.maxsize
app.Beat = app.subclass_with_self(beat_shutdown.Beat)  # type: ignore[misc]  # a cached_property
app.steps["consumer"].add("worker.heartbeats:HeartbeatStep")  # by name: it needs Django's models


@setup_logging.connect
def keep_django_logging(**_: object) -> None:
    """Keep Celery from replacing Django's LOGGING: it does not if this signal has a receiver."""


@task_prerun.connect
def close_stale_connections(**_: object) -> None:
    """Close broken and outdated database connections, as Django does before a request."""
    close_old_connections()


@task_prerun.connect
def bind_log_context(task_id: str, task: Task[..., object], **_: object) -> None:
    """Add the task to every log event. Operation ids, not task ids, link worker logs with web logs."""
    clear_contextvars()
    bind_contextvars(task_id=task_id, task=task.name)


@task_postrun.connect
def clear_log_context(**_: object) -> None:
    clear_contextvars()


@worker_process_init.connect
def ignore_sigterm_in_pool(**_: object) -> None:
    """Ignore SIGTERM in pool processes: process managers signal the whole group.

    The main process gets the same signal, waits for every batch and then ends its pool.
    """
    if current_process().name != "MainProcess":  # the solo pool runs in it
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
