"""The Celery application; `celery -A worker worker` and `celery -A worker beat` start from here."""

import os
import signal

from billiard import current_process
from celery import Celery
from celery.signals import setup_logging, worker_process_init

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("prihod")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["worker"])


@setup_logging.connect
def leave_logging_to_django(**_: object) -> None:
    """A receiver of this signal keeps Celery from replacing Django's LOGGING."""


@worker_process_init.connect
def leave_sigterm_to_the_main_process(**_: object) -> None:
    """Process managers signal the whole group; a pool process would die with its batch half done.

    The main process hears the same signal, lets every batch finish and then ends its pool.
    """
    if current_process().name != "MainProcess":  # which the solo pool runs in
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
