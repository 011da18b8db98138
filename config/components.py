"""Django's apps, middleware, templates and security settings: what no environment variable changes."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from csp.constants import NONE, SELF

INSTALLED_APPS = [
    "backoffice.apps.AdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "axes",
    "csp",
    "django_otp",
    "django_otp.plugins.otp_static",
    "django_otp.plugins.otp_totp",
    "django_celery_results",
    "drf_spectacular_sidecar",  # Swagger UI's static files
    "core",
    "api",
    "ledger",
    "ingest",
    "worker",
    "statements",
    "monitoring",
    "devtools",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "web.security.CspHeaderMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "web.host_check.HostCheckMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "backoffice.middleware.AdminAuthenticationMiddleware",
    "backoffice.middleware.AdminSecondFactorMiddleware",
    "backoffice.middleware.AdminMessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "backoffice.locale.AdminLocaleMiddleware",
    "axes.middleware.AxesMiddleware",
    "web.password_limit.PasswordRateLimitMiddleware",
]

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [Path(__file__).resolve().parent.parent / "backoffice/templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]

# The whole policy of every page, the admin's included: no inline script or style, no external source.
CONTENT_SECURITY_POLICY: dict[str, Any] = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "img-src": [SELF, "data:"],  # Swagger UI's buttons are data: URLs
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
    "LOGIN_REDIRECT_URL": "/admin/",  # also instead of a foreign `next`; Django's default page doesn't exist
    "AXES_CLIENT_IP_CALLABLE": "backoffice.login.axes_client_ip",
    "AXES_COOLOFF_TIME": timedelta(minutes=15),
    "AXES_FAILURE_LIMIT": 5,
    "AXES_LOCKOUT_PARAMETERS": [["username", "ip_address"]],
    "AXES_LOCKOUT_TEMPLATE": "admin/locked_out.html",
    "AXES_RESET_ON_SUCCESS": True,
    # A locked-out client causes no writes: no unbounded rows, and no lockout that it can prolong forever.
    "AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT": False,
    "AXES_DISABLE_ACCESS_LOG": True,  # that table only grows
    "AXES_SENSITIVE_PARAMETERS": ["otp_token", "csrfmiddlewaretoken"],  # besides the password
    "AXES_ENABLE_ADMIN": False,  # its commands do the same, and its pages are not translated
    "AXES_VERBOSE": False,
}

HSTS_SECONDS = 365 * 24 * 3600
# A redirect doesn't help programs: they have already sent their secrets, and it would drop a POST's body.
# Health checks and a bank in the private network use plain HTTP.
NOT_REDIRECTED_TO_TLS = [r"^(api(/|$)|healthz/?$|readyz/?$|metrics/?$)"]


def behind_tls_proxy() -> dict[str, Any]:
    """Return the settings for a proxy that terminates TLS, sets X-Forwarded-Proto, and is the only client."""
    return {
        "SECURE_PROXY_SSL_HEADER": ("HTTP_X_FORWARDED_PROTO", "https"),
        "SECURE_SSL_REDIRECT": True,
        "SECURE_REDIRECT_EXEMPT": NOT_REDIRECTED_TO_TLS,
        "SECURE_HSTS_SECONDS": HSTS_SECONDS,
        "SESSION_COOKIE_SECURE": True,
        "CSRF_COOKIE_SECURE": True,
        "LANGUAGE_COOKIE_SECURE": True,
        # HSTS for subdomains and the preload list are the domain owner's decisions, made at the proxy.
        "SILENCED_SYSTEM_CHECKS": ["security.W005", "security.W021"],
    }
