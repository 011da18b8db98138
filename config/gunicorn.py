"""How gunicorn serves: `gunicorn --config python:config.gunicorn`. Its main process reads this once.

A wrong variable ends it with one line. No settings are loaded here, because the modules of the main process
outlive a reload (SIGHUP).
"""

import sys

from django.core.exceptions import ImproperlyConfigured

from config.env import Environment
from core.listen_address import LOOPBACK, host, in_url

env = Environment()
try:
    bind = f"{in_url(host(env.str('HOST', default=LOOPBACK)))}:{env.whole('PORT')}"
    workers = env.whole("WEB_PROCESSES")
    threads = env.whole("WEB_THREADS")
except ImproperlyConfigured as exc:
    sys.exit(f"Prihod can't start: {exc}")

worker_class = "web.gunicorn_worker.BufferedThreadWorker"
logger_class = "web.gunicorn_worker.JsonLogger"
loglevel = "warning"
keepalive = 75  # seconds
graceful_timeout = 8  # seconds
control_socket_disable = True

# A proxy may say the scheme by one header, and nothing else. By default gunicorn lets it set SCRIPT_NAME and
# PATH_INFO, which a client could send to pass a proxy's path rules, and answers 400 where two headers for the
# scheme disagree.
forwarder_headers = ""
secure_scheme_headers = {"X-FORWARDED-PROTO": "https"}
