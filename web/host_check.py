"""Which requests need a Host that ALLOWED_HOSTS names."""

from django.http import HttpRequest, HttpResponsePermanentRedirect
from django.middleware.common import CommonMiddleware

# Orchestrators and Prometheus call a pod by its address. A delivery's Host is checked after its origin
# (ingest/misconfiguration.py): 400 would have the bank give the payment up.
UNCHECKED = ("/healthz", "/readyz", "/metrics", "/api/webhook/")


class HostCheckMiddleware(CommonMiddleware):
    """Django's CommonMiddleware, which raises DisallowedHost, except for UNCHECKED."""

    def process_request(self, request: HttpRequest) -> HttpResponsePermanentRedirect | None:
        if request.path_info.startswith(UNCHECKED):
            return None
        return super().process_request(request)
