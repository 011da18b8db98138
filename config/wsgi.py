"""The WSGI application that the HTTP server loads."""

import os

from django.core.wsgi import get_wsgi_application

from config.shedding import shedding

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
application = shedding(get_wsgi_application())
