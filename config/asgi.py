"""The ASGI application: deliveries go to their coroutine, all other requests to the WSGI application."""

from a2wsgi import WSGIMiddleware
from django.conf import settings

from config.wsgi import application as wsgi_application
from web.buffered_bodies import BufferedBodies
from web.webhook_application import WebhookApplication

application = WebhookApplication(
    BufferedBodies(WSGIMiddleware(wsgi_application, workers=settings.WEB_THREADS)),  # type: ignore[arg-type]
    trust_proxy=settings.TRUSTED_PROXIES > 0,
)
