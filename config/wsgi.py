"""The WSGI application that the HTTP server loads."""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from gunicorn.arbiter import Arbiter

from core.cli import exit_on_misconfiguration
from core.observability import setup

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
with exit_on_misconfiguration(status=Arbiter.WORKER_BOOT_ERROR):  # upon which gunicorn ends, too
    traced = settings.TRACING_ENABLED
if traced:
    setup.import_extra(setup.TRACES, "core.observability.tracing").trace_requests()
django_application = get_wsgi_application()

# Afterwards, because it counts, and the settings say where counts are kept.
from web.load_shedding import load_shedding  # noqa: E402
from web.password_limit import limit_password_forms  # noqa: E402
from web.request_id import request_id_middleware  # noqa: E402

guarded = load_shedding(limit_password_forms(django_application))
application = request_id_middleware(guarded, trust_proxy=settings.TRUSTED_PROXIES > 0)
