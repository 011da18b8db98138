"""gunicorn's configuration: `gunicorn --config python:config.gunicorn`. Its main process reads it once.

A malformed variable ends the process with one line. This module doesn't load the settings, because modules
of the main process survive a reload (SIGHUP).
"""

import sys

from django.core.exceptions import ImproperlyConfigured

from config.env import Environment
from core.listen_address import LOOPBACK, host, in_url

env = Environment()
try:
    bind = f"{in_url(host(env.str('HOST', default=LOOPBACK)))}:{env.integer('PORT')}"
    workers = env.integer("WEB_PROCESSES")
    threads = env.integer("WEB_THREADS")
except ImproperlyConfigured as exc:
    sys.exit(f"Prihod can't start: {exc}")

worker_class = "web.gunicorn_worker.BufferedThreadWorker"
logger_class = "web.gunicorn_worker.JsonLogger"
loglevel = "warning"
keepalive = 75  # seconds
graceful_timeout = 8  # seconds
control_socket_disable = True

# A proxy may set the scheme by one header, and nothing else. By default gunicorn accepts SCRIPT_NAME and
# PATH_INFO headers, with which a client could bypass a proxy's path rules, and answers 400 if two headers for
# the scheme disagree.
forwarder_headers = ""
secure_scheme_headers = {"X-FORWARDED-PROTO": "https"}
