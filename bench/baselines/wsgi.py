"""The WSGI application as startproject has it, for a stock gunicorn."""

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
