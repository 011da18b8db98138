"""The WSGI application that the HTTP server loads."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django_application = get_wsgi_application()

# Afterwards, because it counts, and the settings say where counts are kept.
from config.shedding import shedding  # noqa: E402

application = shedding(django_application)
