"""The ASGI application: deliveries go to their coroutine, all other requests to the WSGI application."""

from functools import partial

from a2wsgi import WSGIMiddleware
from django.conf import settings

from config.wsgi import application as wsgi_application
from core.observability import setup as observability
from web.buffered_bodies import BufferedBodies
from web.webhook_application import WebhookApplication

application = WebhookApplication(
    BufferedBodies(WSGIMiddleware(wsgi_application, workers=settings.WEB_THREADS)),  # type: ignore[arg-type]
    observe=partial(observability.observe_view, dsn=settings.SENTRY_DSN, traces=settings.TRACING_ENABLED),
    trust_proxy=settings.TRUSTED_PROXIES > 0,
)
