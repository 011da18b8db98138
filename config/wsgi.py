"""The WSGI application."""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from gunicorn.arbiter import Arbiter

from core.cli import exit_on_misconfiguration
from core.observability import setup as observability

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
with exit_on_misconfiguration(status=Arbiter.WORKER_BOOT_ERROR):  # which ends gunicorn's main process, too
    if settings.TRACING_ENABLED:
        observability.import_extra(observability.TRACES, "core.observability.tracing").trace_requests()
    django_application = get_wsgi_application()

# Imported after the settings, because they create metrics, whose directory the settings choose.
from web.password_limit import limit_password_forms
from web.request_id import request_id_middleware

application = request_id_middleware(
    limit_password_forms(django_application), trust_proxy=settings.TRUSTED_PROXIES > 0
)
