"""What production adds: TLS that ends at a proxy, a content security policy, a throttled login.

Plain dictionaries of settings; config/settings.py says when they hold.
"""

from datetime import timedelta
from http import HTTPStatus
from typing import Any

from csp.constants import NONE, SELF
from csp.middleware import CSPMiddleware
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from core.http import error_response

YEAR_SECONDS = 365 * 24 * 3600
# A program isn't redirected: what it had to keep secret it has sent already, and a POST doesn't survive.
# Health checks and a bank in the private network speak plain HTTP.
NOT_REDIRECTED = [r"^(api(/|$)|healthz/?$|readyz/?$|metrics/?$)"]

# The whole of it for every page, the admin's too: no inline script or style, nothing from elsewhere.
PAGE_POLICY: dict[str, Any] = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "img-src": [SELF, "data:"],  # Swagger UI draws its buttons so
        "base-uri": [NONE],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "object-src": [NONE],
    }
}

LOGIN: dict[str, Any] = {
    "AUTHENTICATION_BACKENDS": [
        "axes.backends.AxesStandaloneBackend",
        "django.contrib.auth.backends.ModelBackend",
    ],
    "LOGIN_REDIRECT_URL": "/admin/",  # also where `next` leads elsewhere; Django's default is no page of ours
    "AXES_CLIENT_IP_CALLABLE": "backoffice.login.axes_client_ip",
    "AXES_COOLOFF_TIME": timedelta(minutes=15),
    "AXES_FAILURE_LIMIT": 5,
    "AXES_LOCKOUT_PARAMETERS": [["username", "ip_address"]],
    "AXES_LOCKOUT_TEMPLATE": "admin/locked_out.html",
    "AXES_RESET_ON_SUCCESS": True,
    # A locked-out caller writes nothing: neither rows without end, nor a lock that never ends.
    "AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT": False,
    "AXES_DISABLE_ACCESS_LOG": True,  # a table that only grows
    "AXES_SENSITIVE_PARAMETERS": ["otp_token", "csrfmiddlewaretoken"],  # and the password
    "AXES_ENABLE_ADMIN": False,  # its commands say the same, and its pages speak English
    "AXES_VERBOSE": False,
}


def behind_tls_proxy() -> dict[str, Any]:
    """Settings for a proxy that ends TLS, says so in X-Forwarded-Proto, and alone reaches our port."""
    return {
        "SECURE_PROXY_SSL_HEADER": ("HTTP_X_FORWARDED_PROTO", "https"),
        "SECURE_SSL_REDIRECT": True,
        "SECURE_REDIRECT_EXEMPT": NOT_REDIRECTED,
        "SECURE_HSTS_SECONDS": YEAR_SECONDS,
        "SESSION_COOKIE_SECURE": True,
        "CSRF_COOKIE_SECURE": True,
        "LANGUAGE_COOKIE_SECURE": True,
        # Subdomains and the browsers' preload list are for the owner of the name to decide, at the proxy.
        "SILENCED_SYSTEM_CHECKS": ["security.W005", "security.W021"],
    }


class CspHeaderMiddleware(CSPMiddleware):
    """django-csp, for pages: building a policy for each JSON answer would cost the bank's door time.

    Below /api/ a bad request is no page: what DEBUG=1 shows of a foreign Host becomes what DEBUG=0 answers.
    """

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        if response.get("Content-Type") == "application/json":
            return response
        if response.status_code == HTTPStatus.BAD_REQUEST and f"{request.path}/".startswith("/api/"):
            return error_response(HTTPStatus.BAD_REQUEST, "malformed request")
        return super().process_response(request, response)
