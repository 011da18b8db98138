"""Validation of the Host header against ALLOWED_HOSTS."""

from django.http import HttpRequest, HttpResponsePermanentRedirect
from django.middleware.common import CommonMiddleware

# Orchestrators and Prometheus address a pod by its IP. A delivery's Host is checked after its authentication
# (ingest/misconfiguration.py), because a 400 would make the bank give the payment up.
EXEMPT_PREFIXES = ("/healthz", "/readyz", "/metrics", "/api/webhook/")


class HostCheckMiddleware(CommonMiddleware):
    """Django's CommonMiddleware, which raises DisallowedHost, except below EXEMPT_PREFIXES."""

    def process_request(self, request: HttpRequest) -> HttpResponsePermanentRedirect | None:
        if request.path_info.startswith(EXEMPT_PREFIXES):
            return None
        return super().process_request(request)
