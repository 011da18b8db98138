"""The WSGI application that the HTTP server loads."""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from gunicorn.arbiter import Arbiter

from api.command_line import misconfigured_in_one_line
from config import observing

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
with misconfigured_in_one_line(status=Arbiter.WORKER_BOOT_ERROR):  # upon which gunicorn ends, too
    traced = settings.TRACED
if traced:
    observing.needed_for(observing.TRACES, "config.traces").trace_requests()
django_application = get_wsgi_application()

# Afterwards, because it counts, and the settings say where counts are kept.
from config.hashing import one_form_at_a_time  # noqa: E402
from config.request_id import identified  # noqa: E402
from config.shedding import shedding  # noqa: E402

guarded = shedding(one_form_at_a_time(django_application))
application = identified(guarded, believe_proxy=settings.TRUSTED_PROXIES > 0)
