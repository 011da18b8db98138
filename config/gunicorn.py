"""gunicorn's configuration: `gunicorn --config python:config.gunicorn`. Its main process reads it once.

A malformed variable ends the process with one line. This module doesn't load the settings, because modules
of the main process survive a reload (SIGHUP).
"""

import gc
import resource
import sys
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from config.env import Environment
from core.listen_address import LOOPBACK, host, in_url

env = Environment()
try:
    bind = f"{in_url(host(env.str('HOST', default=LOOPBACK)))}:{env.integer('PORT')}"
    workers = env.integer("WEB_PROCESSES")
    env.integer("WEB_THREADS")  # of the application, in each process
except ImproperlyConfigured as exc:
    sys.exit(f"Prihod can't start: {exc}")

GARBAGE_OBJECTS = 10_000  # new ones until the next collection; Python's default is 700
# The usual limit of 1024 is for programs that use select(). Each connection of a web process is an open file.
OPEN_FILES = 4096
_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
if resource.RLIM_INFINITY != _soft < OPEN_FILES:
    resource.setrlimit(
        resource.RLIMIT_NOFILE,
        (OPEN_FILES if _hard == resource.RLIM_INFINITY else min(OPEN_FILES, _hard), _hard),
    )

worker_class = "web.uvicorn_worker.Worker"
logger_class = "web.uvicorn_worker.JsonLogger"
loglevel = "warning"
keepalive = 75  # seconds
graceful_timeout = 9  # seconds; more than the workers take
control_socket_disable = True


def post_worker_init(_worker: Any) -> None:
    """Collect garbage less often, and not in what the application loaded.

    Deliveries that wait for their commit are many new objects, which the default searches again and again.
    """
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS)
